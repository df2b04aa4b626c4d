-- begin_uploads: notes where objects may soon be, before anything is written there. $1: JSON list
-- of {orphan_id, lease_token, nth, charge_id, output_index, storage, path, uri, begun_at}. Sent
-- again after a lost answer it changes nothing.
INSERT INTO makegood_uploads (orphan_id, lease_token, nth, charge_id, output_index, storage, path,
                              uri, begun_at)
SELECT value ->> 'orphan_id', value ->> 'lease_token', value ->> 'nth', value ->> 'charge_id',
       value ->> 'output_index', value ->> 'storage', value ->> 'path', value ->> 'uri',
       value ->> 'begun_at'
FROM json_each($1) WHERE true
ON CONFLICT (orphan_id, lease_token, nth) DO NOTHING
