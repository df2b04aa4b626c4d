-- mark_swept: what a sweep tried at $2. $1: JSON list of {orphan_id, lease_token, nth, cleared};
-- cleared 1: it is gone.
UPDATE makegood_uploads AS u
SET tried_at = $2, swept_at = CASE WHEN d.cleared = 1 THEN $2 ELSE u.swept_at END
FROM (SELECT value ->> 'orphan_id' AS orphan_id, value ->> 'lease_token' AS lease_token,
             value ->> 'nth' AS nth, value ->> 'cleared' AS cleared FROM json_each($1)) AS d
WHERE u.orphan_id = d.orphan_id AND u.lease_token = d.lease_token AND u.nth = d.nth
