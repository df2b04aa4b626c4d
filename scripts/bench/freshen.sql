-- Brings a copy of a filled database up to date: charges go on at the same density until half an
-- hour ago. Then it makes orphans.
-- every, orphans: of the newest charges, one in `every` loses its output, until
-- `orphans` have lost it.
-- waiting, held: adds so many charges of the last day with orphans that a pass has examined and
-- that are due in 55 minutes: open ones that wait for the provider, and ones that the brake holds.
SET synchronous_commit = off;

SELECT (SELECT charges FROM bench.filled) AS first,
       (SELECT greatest(0, floor(extract(epoch FROM now() - interval '30 minutes' - until)
                                 / 0.36))::bigint FROM bench.filled) AS more \gset
INSERT INTO charges
SELECT 'ch-' || i, 'acc-' || (1 + i % 10000), 'proj-' || (i % 5000), 'node-' || i, 'replicate',
       'owner/model', 'job-' || i,
       f.until + (i - f.charges) * interval '0.36 second', 10, 0, NULL
FROM bench.filled f, generate_series(:first + 1, :first + :more) i;
INSERT INTO charge_items (charge_id, output_index, credits)
SELECT 'ch-' || i, 0, 10 FROM generate_series(:first + 1, :first + :more) i;
INSERT INTO stored_outputs
SELECT 'out-' || i, 'ch-' || i, 0, 'replicate', 'job-' || i, 0, 'proj-' || (i % 5000), 'node-' || i,
       's3://b/o', 'image/png', 1000,
       repeat('a', 64), now(), NULL, NULL
FROM generate_series(:first + 1, :first + :more) i;

SELECT :first + :more AS newest \gset
DELETE FROM stored_outputs
WHERE id IN (SELECT 'out-' || (:newest - (i - 1) * :every) FROM generate_series(1, :orphans) i);

-- Charges whose orphans a pass has opened before, has asked about, and has nothing to do with now.
INSERT INTO charges
SELECT 'wait-' || i, 'acc-' || (1 + i % 10000), 'proj-' || (i % 5000), 'wnode-' || i, 'replicate',
       'owner/model', 'wjob-' || i,
       now() - interval '2 hours' - i * interval '17 hours' / nullif(:waiting + :held, 0), 10, 0,
       NULL
FROM generate_series(1, :waiting + :held) i;
INSERT INTO charge_items (charge_id, output_index, credits) SELECT 'wait-' || i, 0, 10
FROM generate_series(1, :waiting + :held) i;
-- None of them is due. A binary from before the queue has no such column.
DO $$ BEGIN ALTER TABLE makegood_orphans ALTER queued SET DEFAULT false;
EXCEPTION WHEN undefined_column THEN NULL; END $$;
INSERT INTO makegood_orphans (charge_id, output_index, provider, provider_job_id, charged_at,
                              opened_at, opened_by, refund_by,
                              window_ends_at, state, reason, due_at, urgent_at, questions,
                              first_asked_at, last_asked_at, waits)
SELECT c.id, 0, c.provider, c.provider_job_id, c.charged_at, c.charged_at + interval '15 minutes',
       'grace',
       c.charged_at + interval '22 hours', c.charged_at + interval '24 hours',
       CASE WHEN n.nth <= :waiting THEN 'open' ELSE 'held' END, CASE WHEN n.nth <= :waiting
           THEN 'still_running' ELSE 'brake' END,
       now() + interval '55 minutes', c.charged_at + interval '22 hours', 3,
       c.charged_at + interval '15 minutes',
       now() - interval '1 minute', 3
FROM generate_series(1, :waiting + :held) AS n(nth)
JOIN charges c ON c.id = 'wait-' || n.nth;
DO $$ BEGIN ALTER TABLE makegood_orphans ALTER queued SET DEFAULT true;
EXCEPTION WHEN undefined_column THEN NULL; END $$;
INSERT INTO makegood_orphan_events (orphan_id, charge_id, output_index, at, kind)
SELECT id, charge_id, output_index, opened_at, 'opened'
FROM makegood_orphans
WHERE charge_id LIKE 'wait-%';
