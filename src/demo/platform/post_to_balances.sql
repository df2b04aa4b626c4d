-- post_to_balances: the same entries on the balances, where there is a row for them. $1: as for add_entries.
UPDATE balances
SET credits = credits + (SELECT sum(value ->> 'credits') FROM json_each($1)
                         WHERE value ->> 'account_id' = balances.account_id AND value ->> 'bucket' = balances.bucket)
WHERE (account_id, bucket) IN (SELECT value ->> 'account_id', value ->> 'bucket' FROM json_each($1))
