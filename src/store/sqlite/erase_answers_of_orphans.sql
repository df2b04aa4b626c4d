-- erase_answers_of_orphans: the answers about these orphans, found by their events or by their jobs
-- (an answer that changed nothing has no event), and whether an open or held case of its job needs
-- each (needed 1). $1: JSON list of the orphans' ids.
SELECT a.id, 1 AS due,
       EXISTS (SELECT 1 FROM makegood_orphans o
               WHERE o.provider_job_id = a.provider_job_id AND o.provider = a.provider
                 AND o.state IN ('open', 'held')) AS needed
FROM (SELECT e.answer_id AS id
      FROM json_each($1) AS n
      CROSS JOIN makegood_orphans o ON o.id = n.value
      CROSS JOIN makegood_orphan_events e
              ON e.charge_id = o.charge_id AND e.output_index = o.output_index
      WHERE e.answer_id IS NOT NULL
      UNION
      SELECT a.id
      FROM json_each($1) AS n
      CROSS JOIN makegood_orphans o ON o.id = n.value
      CROSS JOIN makegood_answers a
              ON a.provider_job_id = o.provider_job_id AND a.provider = o.provider) AS n
CROSS JOIN makegood_answers a ON a.id = n.id
WHERE a.erasure_id IS NULL AND coalesce(a.code, a.message, a.request, a.excerpt) IS NOT NULL
