-- supersede_resolutions: the current resolution of each listed item becomes history. $1: JSON list
-- of {charge_id, output_index}. $2: now. A refund is never superseded (a trigger says so too).
UPDATE makegood_resolutions SET superseded_at = $2
WHERE superseded_at IS NULL
  AND (charge_id, output_index) IN (SELECT d.charge_id, d.output_index
                                    FROM (SELECT value ->> 'charge_id' AS charge_id,
                                                 value ->> 'output_index' AS output_index
                                                 FROM json_each($1)) AS d)
