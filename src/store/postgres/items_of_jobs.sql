-- items_of_jobs: every item that was bought from one of the listed jobs, through its charge or by a
-- job of its own. $1: JSON list of {provider, job_id}. $2: JSON object whose keys are charges: their
-- items are known already, and are left out of the first branch. Two branches, so that each can use
-- its own index. Every relation is read by key, once per row (OFFSET 0: no join order to choose).
SELECT i.charge_id, i.output_index, i.credits, i.failed_at, c.account_id, c.provider,
       coalesce(i.provider_job_id, c.provider_job_id) AS job_id,
       coalesce(i.provider_output_index,
                CASE WHEN i.provider_job_id IS NULL THEN i.output_index ELSE 0 END) AS job_output_index,
       CASE WHEN o.state IN ('refunded', 'recovered', 'relinked', 'closed')
            THEN 1::bigint ELSE 0::bigint END AS resolved
FROM jsonb_to_recordset($1::jsonb) AS d(provider text, job_id text)
CROSS JOIN LATERAL (SELECT p.id, p.account_id, p.provider, p.provider_job_id FROM charges p
                    WHERE p.provider_job_id = d.job_id AND p.provider = d.provider
                      AND NOT (SELECT $2::jsonb) ? p.id::text OFFSET 0) AS c
CROSS JOIN LATERAL (SELECT p.charge_id, p.output_index, p.credits, p.failed_at,
                           p.provider_job_id, p.provider_output_index
                    FROM charge_items p WHERE p.charge_id = c.id AND p.provider_job_id IS NULL OFFSET 0) AS i
LEFT JOIN LATERAL (SELECT p.state FROM makegood_orphans p
                   WHERE p.charge_id = i.charge_id AND p.output_index = i.output_index OFFSET 0) AS o ON true
UNION ALL
SELECT i.charge_id, i.output_index, i.credits, i.failed_at, c.account_id, c.provider,
       coalesce(i.provider_job_id, c.provider_job_id) AS job_id,
       coalesce(i.provider_output_index,
                CASE WHEN i.provider_job_id IS NULL THEN i.output_index ELSE 0 END) AS job_output_index,
       CASE WHEN o.state IN ('refunded', 'recovered', 'relinked', 'closed')
            THEN 1::bigint ELSE 0::bigint END AS resolved
FROM jsonb_to_recordset($1::jsonb) AS d(provider text, job_id text)
CROSS JOIN LATERAL (SELECT p.charge_id, p.output_index, p.credits, p.failed_at,
                           p.provider_job_id, p.provider_output_index
                    FROM charge_items p WHERE p.provider_job_id = d.job_id OFFSET 0) AS i
CROSS JOIN LATERAL (SELECT p.account_id, p.provider, p.provider_job_id FROM charges p
                    WHERE p.id = i.charge_id AND p.provider = d.provider OFFSET 0) AS c
LEFT JOIN LATERAL (SELECT p.state FROM makegood_orphans p
                   WHERE p.charge_id = i.charge_id AND p.output_index = i.output_index OFFSET 0) AS o ON true
