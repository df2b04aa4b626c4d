-- A recovery on record proves the delivery (P10), and a person can take a wrong refund back.

-- Which output was taken from an item later, because it belongs to another one (P13).
CREATE INDEX makegood_recoveries_taken_from ON makegood_recoveries (from_charge_id, from_output_index)
    WHERE from_charge_id IS NOT NULL;

-- Items whose delivery a recovery proves: makegood brought the output home or put it back, and has
-- not given it to another item since. The platform's row may be gone.
CREATE VIEW makegood_proofs AS
SELECT v.charge_id, v.output_index, v.id AS recovery_id, v.kind, v.stored_output_id, v.recovered_at
FROM makegood_recoveries v
WHERE (SELECT count(*) FROM makegood_recoveries t
       WHERE t.from_charge_id = v.charge_id AND t.from_output_index = v.output_index
         AND t.stored_output_id = v.stored_output_id AND t.id > v.id
         AND (t.charge_id <> v.charge_id OR t.output_index <> v.output_index)) = 0;

-- Of these, the ones whose row the platform has removed: it is not where the item expects it, and
-- no row of the same provider job and index is anywhere else.
CREATE VIEW makegood_lost_outputs AS
SELECT v.charge_id, v.output_index, v.recovery_id, v.kind, v.stored_output_id, v.recovered_at
FROM makegood_proofs v
JOIN makegood_items i ON i.charge_id = v.charge_id AND i.output_index = v.output_index
WHERE (SELECT count(*) FROM makegood_deliveries d
       WHERE d.charge_id = v.charge_id AND d.output_index = v.output_index) = 0
  AND CASE WHEN i.provider_job_id IS NULL THEN
          (SELECT count(*) FROM stored_outputs s
           WHERE s.charge_id = v.charge_id AND s.output_index = v.output_index AND s.deleted_at IS NULL) = 0
      ELSE
          (SELECT count(*) FROM stored_outputs s
           WHERE s.provider_job_id = i.provider_job_id AND s.provider = i.provider
             AND s.provider_output_index = i.provider_output_index AND s.deleted_at IS NULL) = 0
      END;

-- Refunds that a person took back: at most one row a refund, with the refund's own credits. The
-- refund's row stays.
CREATE TABLE makegood_refund_reversals (
    id                   text PRIMARY KEY,
    refund_id            text NOT NULL REFERENCES makegood_refunds,
    charge_id            text NOT NULL,
    output_index         integer NOT NULL,
    account_id           text NOT NULL,
    subscription_credits integer NOT NULL CHECK (subscription_credits >= 0),
    wallet_credits       integer NOT NULL CHECK (wallet_credits >= 0),
    by_whom              text NOT NULL,
    reason               text NOT NULL,
    reversed_at          integer NOT NULL,
    CONSTRAINT one_reversal_a_refund UNIQUE (refund_id),
    CONSTRAINT a_reversal_takes_something CHECK (subscription_credits > 0 OR wallet_credits > 0)
) STRICT;
CREATE INDEX makegood_refund_reversals_by_time ON makegood_refund_reversals (reversed_at);
CREATE TRIGGER makegood_refund_reversals_never_changed BEFORE UPDATE ON makegood_refund_reversals
BEGIN SELECT RAISE(ABORT, 'makegood_refund_reversals is only ever added to (UPDATE refused)'); END;
CREATE TRIGGER makegood_refund_reversals_never_removed BEFORE DELETE ON makegood_refund_reversals
BEGIN SELECT RAISE(ABORT, 'makegood_refund_reversals is only ever added to (DELETE refused)'); END;
CREATE TRIGGER makegood_refund_reversals_never_replaced BEFORE INSERT ON makegood_refund_reversals
WHEN EXISTS (SELECT 1 FROM makegood_refund_reversals WHERE id = NEW.id OR refund_id = NEW.refund_id)
BEGIN SELECT RAISE(ABORT, 'makegood_refund_reversals is only ever added to (a second row of one key refused)'); END;

-- What happened to a charge, with a refund that was taken back.
-- A sum that leaves the range of whole numbers becomes a real one here: that is how it is told.
DROP VIEW billing_activity;
CREATE VIEW billing_activity AS
SELECT c.id AS charge_id, NULL AS output_index, c.account_id, c.charged_at AS at,
       'deduction' AS activity,
       CASE WHEN typeof(-(c.subscription_credits + c.wallet_credits)) <> 'real' THEN -(c.subscription_credits + c.wallet_credits)
            WHEN c.subscription_credits > 0 THEN -9223372036854775807 - 1
            ELSE 9223372036854775807 END AS credits,
       NULL AS reason
FROM charges c
UNION ALL
SELECT e.charge_id, nullif(e.output_index, -1), c.account_id, e.at, 'failure_detected', 0, NULL
FROM makegood_orphan_events e JOIN charges c ON c.id = e.charge_id
WHERE e.kind = 'opened'
UNION ALL
SELECT r.charge_id, r.output_index, r.account_id, r.refunded_at, 'refund', r.subscription_credits + r.wallet_credits, r.reason
FROM makegood_refunds r
UNION ALL
SELECT b.charge_id, b.output_index, b.account_id, b.reversed_at, 'refund_reversed', -(b.subscription_credits + b.wallet_credits), 'by_hand'
FROM makegood_refund_reversals b
UNION ALL
SELECT v.charge_id, v.output_index, c.account_id, v.recovered_at,
       CASE v.kind WHEN 'relink' THEN 'output_put_back' ELSE 'recovery' END, 0, s.reason
FROM makegood_recoveries v
JOIN makegood_resolutions s ON s.id = v.resolution_id
JOIN charges c ON c.id = v.charge_id
UNION ALL
SELECT l.charge_id, l.output_index, l.account_id, l.posted_at, 'refund_by_platform', l.credits, NULL
FROM ledger_entries l
WHERE l.kind = 'refund' AND NOT EXISTS (SELECT 1 FROM makegood_refunds r WHERE r.id = l.refund_id);

-- Every item with what became of it. One whose refund was taken back is billable again; one whose
-- recovered output the platform has removed was delivered.
DROP VIEW usage_history;
CREATE VIEW usage_history AS
SELECT i.charge_id, i.output_index, c.account_id, c.project_id, c.node_id, c.provider, c.model, c.charged_at, i.credits,
       CASE WHEN (r.id IS NOT NULL AND b.id IS NULL) OR EXISTS (SELECT 1 FROM ledger_entries l
                 WHERE l.kind = 'refund' AND l.charge_id = i.charge_id AND (l.output_index = i.output_index OR l.output_index IS NULL)
                   AND NOT EXISTS (SELECT 1 FROM makegood_refunds ours WHERE ours.id = l.refund_id)) THEN 'refunded'
            WHEN EXISTS (SELECT 1 FROM makegood_deliveries m
                 WHERE m.charge_id = i.charge_id AND m.output_index = i.output_index) THEN 'delivered'
            WHEN b.id IS NOT NULL THEN 'refund_reversed'
            WHEN o.state IN ('open', 'held') THEN 'being_looked_into'
            WHEN EXISTS (SELECT 1 FROM makegood_proofs v
                 WHERE v.charge_id = i.charge_id AND v.output_index = i.output_index) THEN 'delivered'
            ELSE 'expected' END AS status,
       ((r.id IS NULL OR b.id IS NOT NULL) AND NOT EXISTS (SELECT 1 FROM ledger_entries l
                 WHERE l.kind = 'refund' AND l.charge_id = i.charge_id AND (l.output_index = i.output_index OR l.output_index IS NULL)
                   AND NOT EXISTS (SELECT 1 FROM makegood_refunds ours WHERE ours.id = l.refund_id))) AS billable
FROM charge_items i
JOIN charges c ON c.id = i.charge_id
LEFT JOIN makegood_refunds r ON r.charge_id = i.charge_id AND r.output_index = i.output_index
LEFT JOIN makegood_refund_reversals b ON b.refund_id = r.id
LEFT JOIN makegood_orphans o ON o.charge_id = i.charge_id AND o.output_index = i.output_index;
