-- index_leads: what each index begins with, and how many rows its table has by its statistics. Only
-- the catalogue is read.
SELECT n.nspname::text AS schema, t.relname::text AS relation, x.relname::text AS index,
       pg_get_indexdef(i.indexrelid, 1, false) AS leads, CAST(greatest(t.reltuples, 0) AS bigint) AS rows
FROM pg_index i
JOIN pg_class x ON x.oid = i.indexrelid
JOIN pg_class t ON t.oid = i.indrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
