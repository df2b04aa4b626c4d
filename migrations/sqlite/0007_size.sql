-- Detection and claims whose cost follows the work to do, on tables of any size.

-- Orphans that are due stand in a queue, ordered by deadline; those that wait are found by the time at which they are due.
-- So a claim reads no orphan that waits, however many there are. due_at still decides: queued only says where to look.
ALTER TABLE makegood_orphans ADD COLUMN queued INTEGER NOT NULL DEFAULT 1;
UPDATE makegood_orphans SET queued = 0
WHERE state IN ('open', 'held') AND due_at > CAST(strftime('%s', 'now') AS INTEGER) * 1000000;
DROP INDEX makegood_orphans_due;
CREATE INDEX makegood_orphans_queue ON makegood_orphans (provider, urgent_at, id)
    WHERE state IN ('open', 'held') AND queued;
CREATE INDEX makegood_orphans_waiting ON makegood_orphans (provider, due_at)
    WHERE state IN ('open', 'held') AND NOT queued;

-- The backlog, charges that are past their window already, is scanned after all others, up to a fixed time.
ALTER TABLE makegood_cursors ADD COLUMN until INTEGER;
-- Charges after position and up to until, counted before the last full look: another number is a charge committed late.
ALTER TABLE makegood_cursors ADD COLUMN charges INTEGER;
