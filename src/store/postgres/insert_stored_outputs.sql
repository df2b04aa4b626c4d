-- insert_stored_outputs: recovered outputs join the charge's project and node (P16, P22).
-- $1: JSON list of {id, charge_id, output_index, provider, provider_job_id, provider_output_index, project_id, node_id, uri, content_type, size_bytes, sha256, stored_at}.
INSERT INTO stored_outputs (id, charge_id, output_index, provider, provider_job_id, provider_output_index, project_id, node_id, uri, content_type, size_bytes, sha256, stored_at)
SELECT d.id, d.charge_id, d.output_index, d.provider, d.provider_job_id, d.provider_output_index, d.project_id, d.node_id, d.uri, d.content_type, d.size_bytes, d.sha256, d.stored_at
FROM jsonb_to_recordset($1::jsonb) AS d(id text, charge_id text, output_index bigint, provider text, provider_job_id text, provider_output_index bigint, project_id text, node_id text, uri text, content_type text, size_bytes bigint, sha256 text, stored_at timestamptz)
WHERE true
