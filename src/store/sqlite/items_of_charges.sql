-- items_of_charges: every item of the listed charges, with the job it was bought from and whether
-- its case is closed. $1: JSON list of charge ids.
SELECT i.charge_id, i.output_index, i.credits, i.failed_at, c.account_id, c.provider,
       coalesce(i.provider_job_id, c.provider_job_id) AS job_id,
       coalesce(i.provider_output_index, CASE WHEN i.provider_job_id IS NULL THEN i.output_index
                ELSE 0 END) AS job_output_index,
       CASE WHEN o.state IN ('refunded', 'recovered', 'relinked', 'closed') THEN 1
           ELSE 0 END AS resolved
FROM charge_items i
JOIN charges c ON c.id = i.charge_id
LEFT JOIN makegood_orphans o ON o.charge_id = i.charge_id AND o.output_index = i.output_index
WHERE i.charge_id IN (SELECT value FROM json_each($1))
