-- outputs_of_jobs: every output that came from one of the listed jobs, wherever it hangs.
-- $1: JSON list of {provider, job_id}. Outputs are read by key, once per job (OFFSET 0: no join order to choose).
SELECT s.id, s.charge_id, s.output_index, s.provider, s.provider_job_id, s.provider_output_index, s.project_id, s.node_id,
       s.sha256, s.stored_at, s.moved_at, s.deleted_at
FROM jsonb_to_recordset($1::jsonb) AS d(provider text, job_id text)
CROSS JOIN LATERAL (SELECT p.id, p.charge_id, p.output_index, p.provider, p.provider_job_id, p.provider_output_index,
                           p.project_id, p.node_id, p.sha256, p.stored_at, p.moved_at, p.deleted_at
                    FROM stored_outputs p
                    WHERE p.provider_job_id = d.job_id AND p.provider = d.provider OFFSET 0) AS s
