-- supersede_resolutions: the current resolution of each listed item becomes history.
-- $1: JSON list of {charge_id, output_index}. $2: now. A refund is never superseded (a trigger says so too).
UPDATE makegood_resolutions u SET superseded_at = $2::timestamptz
WHERE u.superseded_at IS NULL
  AND u.id = ANY (ARRAY(
        SELECT r.id
        FROM jsonb_to_recordset($1::jsonb) AS d(charge_id text, output_index bigint)
        CROSS JOIN LATERAL (SELECT p.id FROM makegood_resolutions p
                            WHERE p.charge_id = d.charge_id AND p.output_index = d.output_index
                              AND p.superseded_at IS NULL OFFSET 0) AS r))
