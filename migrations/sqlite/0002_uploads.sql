-- What may be left over in the storage: one row for each object that a copy is about to write, committed before the first
-- byte goes out, and taken away by the settle that names the object or by the copy that cleaned up after itself.
-- nth: the lease's first, second, … upload.
-- storage: the place without its prefix, file:// or s3://bucket: a sweep looks only into its own.
-- upload_id: the store's id of an upload in parts, where it has one: recorded before the first part.
-- swept_at: removed once; it is removed again a day after it was begun, in case its writer was only asleep.
CREATE TABLE makegood_uploads (
    orphan_id    integer NOT NULL,
    lease_token  integer NOT NULL,
    nth          integer NOT NULL,
    charge_id    text NOT NULL,
    output_index integer NOT NULL,
    storage      text NOT NULL,
    path         text NOT NULL,
    uri          text NOT NULL,
    upload_id    text,
    begun_at     integer NOT NULL,
    tried_at     integer,
    swept_at     integer,
    PRIMARY KEY (orphan_id, lease_token, nth)
) STRICT;

-- The sweep asks whether a recovery names an object.
CREATE INDEX makegood_recoveries_by_item ON makegood_recoveries (charge_id, output_index);
