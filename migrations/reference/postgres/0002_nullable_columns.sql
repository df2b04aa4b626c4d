-- What a platform need not have: projects and places, and hash and size of its own outputs.

ALTER TABLE charges
    ALTER COLUMN project_id DROP NOT NULL,
    ALTER COLUMN node_id DROP NOT NULL;
COMMENT ON COLUMN charges.project_id IS 'The project that its outputs belong to; null: none.';
COMMENT ON COLUMN charges.node_id IS 'The place in the project; null: none.';

ALTER TABLE stored_outputs
    ALTER COLUMN project_id DROP NOT NULL,
    ALTER COLUMN node_id DROP NOT NULL,
    ALTER COLUMN size_bytes DROP NOT NULL,
    ALTER COLUMN sha256 DROP NOT NULL;
COMMENT ON COLUMN stored_outputs.project_id IS 'The project it lies in; null is the same place as null of its charge.';
COMMENT ON COLUMN stored_outputs.sha256 IS
    'SHA-256 of the file, in hexadecimal. Null holds the files without an index of its job (missing_hash).';
