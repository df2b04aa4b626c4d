-- items_of_charges: every item of the listed charges, with the job it was bought from and whether its case is closed.
-- $1: JSON list of charge ids. Every relation is read by key, once per row (OFFSET 0: no join order to choose).
SELECT i.charge_id, i.output_index, i.credits, i.failed_at, c.account_id, c.provider,
       coalesce(i.provider_job_id, c.provider_job_id) AS job_id,
       coalesce(i.provider_output_index, CASE WHEN i.provider_job_id IS NULL THEN i.output_index ELSE 0 END) AS job_output_index,
       CASE WHEN o.state IN ('refunded', 'recovered', 'relinked', 'closed') THEN 1::bigint ELSE 0::bigint END AS resolved
FROM (SELECT DISTINCT v AS charge_id FROM jsonb_array_elements_text($1::jsonb) AS v) AS d
CROSS JOIN LATERAL (SELECT p.account_id, p.provider, p.provider_job_id FROM charges p WHERE p.id = d.charge_id OFFSET 0) AS c
CROSS JOIN LATERAL (SELECT p.charge_id, p.output_index, p.credits, p.failed_at, p.provider_job_id, p.provider_output_index
                    FROM charge_items p WHERE p.charge_id = d.charge_id OFFSET 0) AS i
LEFT JOIN LATERAL (SELECT p.state FROM makegood_orphans p
                   WHERE p.charge_id = i.charge_id AND p.output_index = i.output_index OFFSET 0) AS o ON true
