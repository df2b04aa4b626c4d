-- insert_stored_outputs: recovered outputs join the charge's project and node (P16, P22). $1: JSON
-- list of {id, charge_id, output_index, provider, provider_job_id, provider_output_index,
-- project_id, node_id, uri, content_type, size_bytes, sha256, stored_at}.
INSERT INTO stored_outputs (id, charge_id, output_index, provider, provider_job_id,
                            provider_output_index, project_id, node_id, uri, content_type,
                            size_bytes, sha256, stored_at)
SELECT d.id, d.charge_id, d.output_index, d.provider, d.provider_job_id, d.provider_output_index,
       d.project_id, d.node_id, d.uri, d.content_type, d.size_bytes, d.sha256, d.stored_at
FROM (SELECT value ->> 'id' AS id, value ->> 'charge_id' AS charge_id,
             value ->> 'output_index' AS output_index, value ->> 'provider' AS provider,
             value ->> 'provider_job_id' AS provider_job_id,
             value ->> 'provider_output_index' AS provider_output_index,
             value ->> 'project_id' AS project_id, value ->> 'node_id' AS node_id,
             value ->> 'uri' AS uri, value ->> 'content_type' AS content_type,
             value ->> 'size_bytes' AS size_bytes, value ->> 'sha256' AS sha256,
             value ->> 'stored_at' AS stored_at
             FROM json_each($1)) AS d
WHERE true
