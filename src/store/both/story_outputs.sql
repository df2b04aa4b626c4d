-- story_outputs: what is stored for one charge: what hangs on it, and what its jobs made, wherever
-- that hangs. $1: the charge's id.
SELECT s.id, s.charge_id, s.output_index, s.provider, s.provider_job_id, s.provider_output_index,
       s.project_id, s.node_id,
       s.uri, s.content_type, s.size_bytes, s.stored_at, s.moved_at, s.deleted_at
FROM stored_outputs s
WHERE s.charge_id = $1
UNION
SELECT s.id, s.charge_id, s.output_index, s.provider, s.provider_job_id, s.provider_output_index,
       s.project_id, s.node_id,
       s.uri, s.content_type, s.size_bytes, s.stored_at, s.moved_at, s.deleted_at
FROM makegood_items i
JOIN stored_outputs s ON s.provider_job_id = i.provider_job_id AND s.provider = i.provider
WHERE i.charge_id = $1
ORDER BY stored_at, id
