-- search_charges_by_job: whether charges can be searched by the provider's job. Only explained,
-- never run.
SELECT provider_job_id FROM charges WHERE provider_job_id = CAST($1 AS text)
