-- contract_stored_outputs: whether the relation has the columns that makegood needs, and a row to
-- see what is in them.
SELECT id, charge_id, output_index, provider, provider_job_id, provider_output_index, project_id,
       node_id, uri, content_type,
       size_bytes, sha256, stored_at, moved_at, deleted_at
FROM stored_outputs
LIMIT 1
