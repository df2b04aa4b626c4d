-- erase_passes_of_orphans: the reports of passes that worked on these orphans and name the account
-- or one of their charges. $1: JSON list of the orphans' ids. $2: JSON list of the account and the
-- charges, as they are.
SELECT p.id, 1 AS due, 0 AS needed
FROM (SELECT DISTINCT e.pass_id AS id
      FROM json_each($1) AS n
      CROSS JOIN makegood_orphans o ON o.id = n.value
      CROSS JOIN makegood_orphan_events e
              ON e.charge_id = o.charge_id AND e.output_index = o.output_index
      WHERE e.pass_id IS NOT NULL) AS n
CROSS JOIN makegood_passes p ON p.id = n.id
WHERE p.report IS NOT NULL
  -- As JSON spells it, without the quotation marks.
  AND EXISTS (SELECT 1 FROM json_each($2) AS named
              WHERE instr(p.report, substr(json_quote(named.value), 2,
                                           length(json_quote(named.value)) - 2)) > 0)
