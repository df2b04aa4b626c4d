-- The platform's tables with :n charges of one item each, 10,000 an hour up to half an hour ago,
-- all delivered. For a database in which migrations/reference/postgres/0001_contract.sql was run.
-- Indexes are made after the rows, and rows in the transaction that emptied their table, which
-- writes no WAL.
SET synchronous_commit = off;
SET maintenance_work_mem = '1GB';
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;

INSERT INTO accounts SELECT 'acc-' || i, 'user' FROM generate_series(1, 10000) i;
INSERT INTO balances SELECT 'acc-' || i, b, 100000
FROM generate_series(1, 10000) i, (VALUES ('subscription'), ('wallet')) x (b);

BEGIN;
DROP INDEX charges_by_time, charges_by_job, stored_outputs_by_item, stored_outputs_by_job;
ALTER TABLE charges DROP CONSTRAINT charges_pkey;
ALTER TABLE charge_items DROP CONSTRAINT charge_items_pkey;
ALTER TABLE stored_outputs DROP CONSTRAINT stored_outputs_pkey;
TRUNCATE charges, charge_items, stored_outputs;
INSERT INTO charges
SELECT 'ch-' || i, 'acc-' || (1 + i % 10000), 'proj-' || (i % 5000), 'node-' || i, 'replicate',
       'owner/model', 'job-' || i,
       now() - interval '30 minutes' - (:n - i) * interval '0.36 second', 10, 0, NULL
FROM generate_series(1, :n) i;
INSERT INTO charge_items (charge_id, output_index, credits) SELECT 'ch-' || i, 0, 10
FROM generate_series(1, :n) i;
INSERT INTO stored_outputs
SELECT 'out-' || i, 'ch-' || i, 0, 'replicate', 'job-' || i, 0, 'proj-' || (i % 5000), 'node-' || i,
       's3://b/o', 'image/png', 1000,
       repeat('a', 64), now(), NULL, NULL
FROM generate_series(1, :n) i;
ALTER TABLE charges ADD PRIMARY KEY (id);
ALTER TABLE charge_items ADD PRIMARY KEY (charge_id, output_index);
ALTER TABLE stored_outputs ADD PRIMARY KEY (id);
CREATE INDEX charges_by_time ON charges (charged_at, id);
CREATE INDEX charges_by_job ON charges (provider_job_id, provider);
CREATE INDEX stored_outputs_by_item ON stored_outputs (charge_id, output_index);
CREATE INDEX stored_outputs_by_job ON stored_outputs (provider_job_id, provider);
COMMIT;

-- How far the charges go, to continue from when the database is copied.
CREATE SCHEMA bench;
CREATE TABLE bench.filled AS SELECT count(*) AS charges, max(charged_at) AS until FROM charges;
VACUUM (ANALYZE);
