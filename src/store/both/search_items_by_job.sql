-- search_items_by_job: whether charge_items can be searched by the item's own job. Only explained,
-- never run.
SELECT provider_job_id FROM charge_items WHERE provider_job_id = CAST($1 AS text)
