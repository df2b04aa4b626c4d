-- story_outputs: the stored outputs of one charge: those that are linked to it, and those of its
-- jobs, wherever they are linked. $1: the charge's id.
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
