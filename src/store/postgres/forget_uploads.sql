-- forget_uploads: nothing is left there that nobody names. $1: JSON list of {orphan_id, lease_token, nth}.
DELETE FROM makegood_uploads u
USING jsonb_to_recordset($1::jsonb) AS d(orphan_id bigint, lease_token bigint, nth bigint)
WHERE u.orphan_id = d.orphan_id AND u.lease_token = d.lease_token AND u.nth = d.nth
