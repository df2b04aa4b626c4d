-- insert_recoveries: how an output came home or back to its place. $1: JSON list of {resolution_id,
-- charge_id, output_index, kind, provider, stored_output_id, from_charge_id, from_output_index,
-- uri, size_bytes, sha256, content_type, declared_type, source_host, recovered_at}.
INSERT INTO makegood_recoveries (resolution_id, charge_id, output_index, kind, provider,
                                 stored_output_id, from_charge_id, from_output_index, uri,
                                 size_bytes, sha256, content_type, declared_type, source_host,
                                 recovered_at)
SELECT d.resolution_id, d.charge_id, d.output_index, d.kind, d.provider, d.stored_output_id,
       d.from_charge_id, d.from_output_index, d.uri, d.size_bytes, d.sha256, d.content_type,
       d.declared_type, d.source_host, d.recovered_at
FROM (SELECT value ->> 'resolution_id' AS resolution_id, value ->> 'charge_id' AS charge_id,
             value ->> 'output_index' AS output_index, value ->> 'kind' AS kind,
             value ->> 'provider' AS provider, value ->> 'stored_output_id' AS stored_output_id,
             value ->> 'from_charge_id' AS from_charge_id,
             value ->> 'from_output_index' AS from_output_index, value ->> 'uri' AS uri,
             value ->> 'size_bytes' AS size_bytes, value ->> 'sha256' AS sha256,
             value ->> 'content_type' AS content_type, value ->> 'declared_type' AS declared_type,
             value ->> 'source_host' AS source_host, value ->> 'recovered_at' AS recovered_at
             FROM json_each($1)) AS d
WHERE true
