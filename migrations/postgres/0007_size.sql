-- Detection and claims whose cost follows the work to do, on tables of any size.

-- Orphans that are due stand in a queue, ordered by deadline; those that wait are found by the time at which they are due.
-- So a claim reads no orphan that waits, however many there are. due_at still decides: queued only says where to look.
ALTER TABLE makegood_orphans ADD COLUMN queued boolean NOT NULL DEFAULT true;
COMMENT ON COLUMN makegood_orphans.queued IS 'In the queue of orphans to be claimed. A claim takes it out; what waits is put back when it is due.';
UPDATE makegood_orphans SET queued = false WHERE state IN ('open', 'held') AND due_at > now();
DROP INDEX makegood_orphans_due;
CREATE INDEX makegood_orphans_queue ON makegood_orphans (provider, urgent_at, id)
    WHERE state IN ('open', 'held') AND queued;
CREATE INDEX makegood_orphans_waiting ON makegood_orphans (provider, due_at)
    WHERE state IN ('open', 'held') AND NOT queued;

-- The backlog, charges that are past their window already, is scanned after all others, up to a fixed time.
ALTER TABLE makegood_cursors
    ADD COLUMN until   timestamptz,
    ADD COLUMN charges bigint;
COMMENT ON COLUMN makegood_cursors.until IS 'Of the backlog: where it ends; it is finished once position has reached it. Of other scans: up to where charges were counted.';
COMMENT ON COLUMN makegood_cursors.charges IS 'Charges after position and up to until, counted before the last full look: another number is a charge committed late.';
