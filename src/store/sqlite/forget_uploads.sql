-- forget_uploads: nothing is left there that nobody names. $1: JSON list of {orphan_id,
-- lease_token, nth}.
DELETE FROM makegood_uploads
WHERE (orphan_id, lease_token, nth) IN (SELECT value ->> 'orphan_id', value ->> 'lease_token',
                                               value ->> 'nth' FROM json_each($1))
