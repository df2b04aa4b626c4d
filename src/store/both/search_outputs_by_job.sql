-- search_outputs_by_job: whether stored_outputs can be searched by the provider's job. Only
-- explained, never run.
SELECT provider_job_id FROM stored_outputs WHERE provider_job_id = CAST($1 AS text)
