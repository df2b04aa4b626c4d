-- outputs_of_jobs: every output that came from one of the listed jobs, wherever it hangs.
-- $1: JSON list of {provider, job_id}.
SELECT s.id, s.charge_id, s.output_index, s.provider, s.provider_job_id, s.provider_output_index,
       s.project_id, s.node_id,
       s.sha256, s.stored_at, s.moved_at, s.deleted_at
FROM (SELECT value ->> 'provider' AS provider, value ->> 'job_id' AS job_id FROM json_each($1)) AS d
JOIN stored_outputs s ON s.provider_job_id = d.job_id AND s.provider = d.provider
