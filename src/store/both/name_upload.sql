-- name_upload: records the store's id of an upload in parts, before its first part. $1: id. $2:
-- orphan. $3: token. $4: nth.
UPDATE makegood_uploads SET upload_id = $1 WHERE orphan_id = $2 AND lease_token = $3 AND nth = $4
RETURNING nth
