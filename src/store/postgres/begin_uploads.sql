-- begin_uploads: notes where objects may soon be, before anything is written there.
-- $1: JSON list of {orphan_id, lease_token, nth, charge_id, output_index, storage, path, uri, begun_at}. Sent again after a lost answer it changes nothing.
INSERT INTO makegood_uploads (orphan_id, lease_token, nth, charge_id, output_index, storage, path, uri, begun_at)
SELECT d.orphan_id, d.lease_token, d.nth, d.charge_id, d.output_index, d.storage, d.path, d.uri, d.begun_at
FROM jsonb_to_recordset($1::jsonb) AS d(orphan_id bigint, lease_token bigint, nth bigint, charge_id text, output_index bigint, storage text, path text, uri text, begun_at timestamptz)
ON CONFLICT (orphan_id, lease_token, nth) DO NOTHING
