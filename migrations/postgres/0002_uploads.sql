-- What may be left over in the storage: one row for each object that a copy is about to write, committed before the first
-- byte goes out, and taken away by the settle that names the object or by the copy that cleaned up after itself.
CREATE TABLE makegood_uploads (
    orphan_id    bigint NOT NULL,
    lease_token  bigint NOT NULL,
    nth          bigint NOT NULL,
    charge_id    text NOT NULL,
    output_index bigint NOT NULL,
    storage      text NOT NULL,
    path         text NOT NULL,
    uri          text NOT NULL,
    upload_id    text,
    begun_at     timestamptz NOT NULL,
    tried_at     timestamptz,
    swept_at     timestamptz,
    PRIMARY KEY (orphan_id, lease_token, nth)
);
COMMENT ON TABLE makegood_uploads IS 'Objects being written, or left behind: what the sweep of the storage goes by. Empty when nothing is under way.';
COMMENT ON COLUMN makegood_uploads.nth IS 'The lease''s first, second, … upload.';
COMMENT ON COLUMN makegood_uploads.storage IS 'The place without its prefix, file:// or s3://bucket: a sweep looks only into its own.';
COMMENT ON COLUMN makegood_uploads.upload_id IS 'The store''s id of an upload in parts, where it has one: recorded before the first part.';
COMMENT ON COLUMN makegood_uploads.swept_at IS 'Removed once; it is removed again a day after it was begun, in case its writer was only asleep.';

-- The sweep asks whether a recovery names an object.
CREATE INDEX makegood_recoveries_by_item ON makegood_recoveries (charge_id, output_index);
