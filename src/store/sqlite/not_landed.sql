-- not_landed: those of the listed items that are not delivered by rule 1 although their output was
-- just stored or put back. $1: JSON list of {charge_id, output_index}. No row: the platform's
-- relation did what it was told.
SELECT d.charge_id, d.output_index
FROM (SELECT value ->> 'charge_id' AS charge_id, value ->> 'output_index' AS output_index
      FROM json_each($1)) AS d
WHERE NOT EXISTS (SELECT 1 FROM makegood_deliveries v
                  WHERE v.charge_id = d.charge_id AND v.output_index = d.output_index)
