-- add_accounts: inserts accounts. $1: JSON list of {id, kind}.
INSERT INTO accounts (id, kind)
SELECT value ->> 'id', value ->> 'kind' FROM json_each($1)
