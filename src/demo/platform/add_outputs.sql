-- add_outputs: inserts stored outputs. $1: JSON list of outputs; the keys are the columns.
INSERT INTO stored_outputs (id, charge_id, output_index, provider, provider_job_id,
                            provider_output_index, project_id, node_id, uri, content_type,
                            size_bytes, sha256, stored_at, moved_at, deleted_at)
SELECT value ->> 'id', value ->> 'charge_id', value ->> 'output_index', value ->> 'provider',
       value ->> 'provider_job_id', value ->> 'provider_output_index', value ->> 'project_id',
       value ->> 'node_id', value ->> 'uri',
       value ->> 'content_type', value ->> 'size_bytes', value ->> 'sha256', value ->> 'stored_at',
       value ->> 'moved_at', value ->> 'deleted_at'
FROM json_each($1)
