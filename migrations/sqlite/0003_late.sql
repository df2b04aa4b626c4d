-- What becomes known after a refund: jobs that are asked about again, and successes that came too late. Nothing here
-- takes anything back from a customer. (PostgreSQL also has makegood_store_output; SQLite has one writer at a time.)

-- Items refunded without proof, whose providers are asked again later. One row an item, made with its refund; ended after
-- the last time or the first certain answer.
-- provider_job_id: The job; null until one is on record.
-- ended_because: succeeded, stored, did_not, asked_enough, duplicate_job, unreadable_row.
CREATE TABLE makegood_late_questions (
    orphan_id       integer PRIMARY KEY REFERENCES makegood_orphans,
    charge_id       text NOT NULL,
    output_index    integer NOT NULL,
    provider        text NOT NULL,
    provider_job_id text,
    refunded_at     integer NOT NULL,
    due_at          integer NOT NULL,
    asked           integer NOT NULL DEFAULT 0,
    last_asked_at   integer,
    lease_token     integer NOT NULL DEFAULT 0,
    leased_until    integer,
    ended_at        integer,
    ended_because   text,
    CONSTRAINT ended_for_a_reason CHECK ((ended_at IS NULL) = (ended_because IS NULL))
) STRICT;
-- Small however large the table grows: what has ended is not in them.
CREATE INDEX makegood_late_questions_due ON makegood_late_questions (provider, due_at, orphan_id) WHERE ended_at IS NULL;
CREATE INDEX makegood_late_questions_job ON makegood_late_questions (provider_job_id, provider)
    WHERE ended_at IS NULL AND provider_job_id IS NOT NULL;
CREATE INDEX makegood_late_questions_jobless ON makegood_late_questions (charge_id)
    WHERE ended_at IS NULL AND provider_job_id IS NULL;

-- Refunded items whose job turned out to have succeeded: the provider says so (never_stored), or their output was stored
-- after the refund (stored_late, P20). At most one row an item; the refund stays.
CREATE TABLE makegood_late_successes (
    id               integer PRIMARY KEY AUTOINCREMENT,
    charge_id        text NOT NULL,
    output_index     integer NOT NULL,
    refund_id        text NOT NULL REFERENCES makegood_refunds,
    kind             text NOT NULL CHECK (kind IN ('never_stored', 'stored_late')),
    provider         text NOT NULL,
    model            text NOT NULL,
    provider_job_id  text,
    noticed_at       integer NOT NULL,
    noticed_by       text NOT NULL CHECK (noticed_by IN ('question', 'look', 'makegood_store_output')),
    answer_id        integer REFERENCES makegood_answers,
    stored_output_id text,
    CONSTRAINT one_late_success_an_item UNIQUE (charge_id, output_index),
    CONSTRAINT stored_or_said CHECK (CASE kind WHEN 'stored_late' THEN stored_output_id IS NOT NULL ELSE answer_id IS NOT NULL END)
) STRICT;
CREATE INDEX makegood_late_successes_by_time ON makegood_late_successes (noticed_at);
CREATE TRIGGER makegood_late_successes_never_changed BEFORE UPDATE ON makegood_late_successes
BEGIN SELECT RAISE(ABORT, 'makegood_late_successes is only ever added to (UPDATE refused)'); END;
CREATE TRIGGER makegood_late_successes_never_removed BEFORE DELETE ON makegood_late_successes
BEGIN SELECT RAISE(ABORT, 'makegood_late_successes is only ever added to (DELETE refused)'); END;
CREATE TRIGGER makegood_late_successes_never_replaced BEFORE INSERT ON makegood_late_successes
WHEN EXISTS (SELECT 1 FROM makegood_late_successes WHERE id = NEW.id OR (charge_id = NEW.charge_id AND output_index = NEW.output_index))
BEGIN SELECT RAISE(ABORT, 'makegood_late_successes is only ever added to (a second row of one key refused)'); END;

-- Credits near the ends of the range stop there instead of failing the whole view.

-- What happened to a charge, with times: deduction, detection, refund or recovery (P21).
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
SELECT v.charge_id, v.output_index, c.account_id, v.recovered_at,
       CASE v.kind WHEN 'relink' THEN 'output_put_back' ELSE 'recovery' END, 0, s.reason
FROM makegood_recoveries v
JOIN makegood_resolutions s ON s.id = v.resolution_id
JOIN charges c ON c.id = v.charge_id
UNION ALL
SELECT l.charge_id, l.output_index, l.account_id, l.posted_at, 'refund_by_platform', l.credits, NULL
FROM ledger_entries l
WHERE l.kind = 'refund' AND NOT EXISTS (SELECT 1 FROM makegood_refunds r WHERE r.id = l.refund_id);

-- The billable total of each account (P04). Summed in two halves, because sum() fails where it leaves the range.
DROP VIEW billable_usage;
CREATE VIEW billable_usage AS
SELECT account_id, items,
       CASE WHEN high + (low >> 32) > 2147483647 THEN 9223372036854775807
            WHEN high + (low >> 32) < -2147483648 THEN -9223372036854775807 - 1
            ELSE ((high + (low >> 32)) << 32) | (low & 4294967295) END AS credits
FROM (SELECT account_id, count(*) AS items, sum(credits >> 32) AS high, sum(credits & 4294967295) AS low
      FROM usage_history WHERE billable GROUP BY account_id);
