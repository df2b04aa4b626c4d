-- insert_recoveries: how an output came home or back to its place.
-- $1: JSON list of {resolution_id, charge_id, output_index, kind, provider, stored_output_id, from_charge_id, from_output_index, uri, size_bytes, sha256, content_type, declared_type, source_host, recovered_at}.
INSERT INTO makegood_recoveries (resolution_id, charge_id, output_index, kind, provider, stored_output_id, from_charge_id, from_output_index, uri, size_bytes, sha256, content_type, declared_type, source_host, recovered_at)
SELECT d.resolution_id, d.charge_id, d.output_index, d.kind, d.provider, d.stored_output_id, d.from_charge_id, d.from_output_index, d.uri, d.size_bytes, d.sha256, d.content_type, d.declared_type, d.source_host, d.recovered_at
FROM jsonb_to_recordset($1::jsonb) AS d(resolution_id bigint, charge_id text, output_index bigint, kind text, provider text, stored_output_id text, from_charge_id text, from_output_index bigint, uri text, size_bytes bigint, sha256 text, content_type text, declared_type text, source_host text, recovered_at timestamptz)
WHERE true
