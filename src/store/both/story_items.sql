-- story_items: the items of one charge with the jobs that were to make them. $1: the charge's id.
SELECT output_index, credits, provider, provider_job_id, provider_output_index, failed_at
FROM makegood_items
WHERE charge_id = $1
ORDER BY output_index
