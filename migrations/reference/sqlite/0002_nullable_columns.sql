-- What a platform need not have: projects and places, and hash and size of its own outputs.
--
-- SQLite has no statement that takes NOT NULL away. Its manual (ALTER TABLE, section 8) allows to
-- change the text of the definition instead. A new table in its place would lose the triggers and
-- indexes that the platform has added.
PRAGMA writable_schema = ON;
UPDATE sqlite_schema
SET sql = replace(replace(sql, 'project_id           text NOT NULL', 'project_id           text'),
                  'node_id              text NOT NULL', 'node_id              text')
WHERE type = 'table' AND name = 'charges';
UPDATE sqlite_schema
SET sql = replace(replace(replace(replace(sql,
              'project_id            text NOT NULL', 'project_id            text'),
              'node_id               text NOT NULL', 'node_id               text'),
              'size_bytes            integer NOT NULL', 'size_bytes            integer'),
              'sha256                text NOT NULL', 'sha256                text')
WHERE type = 'table' AND name = 'stored_outputs';
PRAGMA writable_schema = RESET;
-- Other connections read the definitions again.
CREATE VIEW makegood_definitions_changed AS SELECT 1 AS one;
DROP VIEW makegood_definitions_changed;
