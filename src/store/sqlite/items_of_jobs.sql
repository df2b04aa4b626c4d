-- items_of_jobs: every item that was bought from one of the listed jobs, through its charge or by a
-- job of its own. $1: JSON list of {provider, job_id}. $2: JSON object whose keys are charges:
-- their items are known already, and are left out of the first branch. Two branches, so that each
-- can use its own index.
SELECT i.charge_id, i.output_index, i.credits, i.failed_at, c.account_id, c.provider,
       coalesce(i.provider_job_id, c.provider_job_id) AS job_id,
       coalesce(i.provider_output_index, CASE WHEN i.provider_job_id IS NULL THEN i.output_index
                ELSE 0 END) AS job_output_index,
       CASE WHEN o.state IN ('refunded', 'recovered', 'relinked', 'closed') THEN 1
           ELSE 0 END AS resolved
FROM (SELECT value ->> 'provider' AS provider, value ->> 'job_id' AS job_id FROM json_each($1)) AS d
JOIN charges c ON c.provider_job_id = d.job_id AND c.provider = d.provider
    AND c.id NOT IN (SELECT key FROM json_each($2))
JOIN charge_items i ON i.charge_id = c.id AND i.provider_job_id IS NULL
LEFT JOIN makegood_orphans o ON o.charge_id = i.charge_id AND o.output_index = i.output_index
UNION ALL
SELECT i.charge_id, i.output_index, i.credits, i.failed_at, c.account_id, c.provider,
       coalesce(i.provider_job_id, c.provider_job_id) AS job_id,
       coalesce(i.provider_output_index, CASE WHEN i.provider_job_id IS NULL THEN i.output_index
                ELSE 0 END) AS job_output_index,
       CASE WHEN o.state IN ('refunded', 'recovered', 'relinked', 'closed') THEN 1
           ELSE 0 END AS resolved
FROM (SELECT value ->> 'provider' AS provider, value ->> 'job_id' AS job_id FROM json_each($1)) AS d
JOIN charge_items i ON i.provider_job_id = d.job_id
JOIN charges c ON c.id = i.charge_id AND c.provider = d.provider
LEFT JOIN makegood_orphans o ON o.charge_id = i.charge_id AND o.output_index = i.output_index
