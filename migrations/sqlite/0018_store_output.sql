-- On PostgreSQL makegood_store_output refuses what is no output. SQLite has no such function:
-- nothing to do.
SELECT 1;
