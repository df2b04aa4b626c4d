-- makegood's own tables. Nothing else writes them; no foreign key leads into the contract relations, which may be views.
-- The rules that money rests on stand here as constraints, not only in code:
--   one refund an item, never more refunded per charge and bucket than was drawn, one current resolution an item,
--   refunds, recoveries, answers and events only ever added to.

-- Times are whole microseconds since 1970 UTC.

-- Which job an item was bought from: its own, else the charge's; an empty one is none.
-- Items with the job they were bought from.
CREATE VIEW makegood_items AS
SELECT i.charge_id,
       i.output_index,
       i.credits,
       i.failed_at,
       c.provider,
       nullif(coalesce(i.provider_job_id, c.provider_job_id), '') AS provider_job_id,
       coalesce(i.provider_output_index,
                CASE WHEN i.provider_job_id IS NULL THEN i.output_index ELSE 0 END) AS provider_output_index,
       c.project_id,
       c.node_id
FROM charge_items i
JOIN charges c ON c.id = i.charge_id;

-- Rule 1 in SQL: linked to the item, of its job where it names one, in its place or moved by a person; deleted or not.
-- facts.rs says the same in Rust; a test compares the two.
-- Outputs that are where their item expects them (rule 1).
CREATE VIEW makegood_deliveries AS
SELECT i.charge_id, i.output_index, s.id AS stored_output_id, s.stored_at
FROM makegood_items i
JOIN stored_outputs s ON s.charge_id = i.charge_id AND s.output_index = i.output_index
WHERE (i.provider_job_id IS NULL
       OR (s.provider = i.provider AND s.provider_job_id = i.provider_job_id
           AND s.provider_output_index = i.provider_output_index))
  AND ((s.project_id = i.project_id AND s.node_id = i.node_id) OR s.moved_at IS NOT NULL);

-- One row a pass. No finished_at: still running, or killed; either way its work stands as far as it was committed.
CREATE TABLE makegood_passes (
    id          integer PRIMARY KEY AUTOINCREMENT,
    mode        text NOT NULL CHECK (mode IN ('run', 'schedule', 'by_hand')),
    started_at  integer NOT NULL,
    finished_at integer,
    outcome     text CHECK (outcome IN ('done', 'failed', 'stopped')),
    report      text
) STRICT;
CREATE INDEX makegood_passes_done ON makegood_passes (finished_at) WHERE outcome = 'done';

-- How far each scan has looked; never moves back by itself.
CREATE TABLE makegood_cursors (
    name       text PRIMARY KEY,
    position   integer NOT NULL,
    updated_at integer NOT NULL
) STRICT;

-- What was drawn for a charge and what makegood gave back (P03). Locked first in every settle.
CREATE TABLE makegood_charges (
    charge_id             text PRIMARY KEY,
    account_id            text NOT NULL,
    subscription_drawn    integer NOT NULL CHECK (subscription_drawn >= 0),
    wallet_drawn          integer NOT NULL CHECK (wallet_drawn >= 0),
    subscription_refunded integer NOT NULL DEFAULT 0,
    wallet_refunded       integer NOT NULL DEFAULT 0,
    CONSTRAINT never_more_refunded_than_drawn_subscription CHECK (subscription_refunded BETWEEN 0 AND subscription_drawn),
    CONSTRAINT never_more_refunded_than_drawn_wallet CHECK (wallet_refunded BETWEEN 0 AND wallet_drawn)
) STRICT;

-- What the provider said about a job, as it was read and as it stood (cut, redacted). Evidence of every decision.
CREATE TABLE makegood_answers (
    id              integer PRIMARY KEY AUTOINCREMENT,
    provider        text NOT NULL,
    provider_job_id text NOT NULL,
    asked_at        integer NOT NULL,
    verdict         text NOT NULL,
    class           text,
    code            text,
    message         text,
    offered         integer NOT NULL,
    request         text,
    http_status     integer,
    excerpt         text
) STRICT;
CREATE INDEX makegood_answers_by_job ON makegood_answers (provider_job_id, provider);

-- Items that had no stored output after their grace, and what became of them. One row an item, reopened if need be.
-- output_index: The item; -1: the charge as a whole, which has no items.
-- refund_by: When the benefit of the doubt ends; two hours after opening for one that was opened late.
-- urgent_at: The earlier of refund_by and the known expiry of the output: the order of claiming.
-- lease_token: Raised by every claim; settle must name the current one.
CREATE TABLE makegood_orphans (
    id              integer PRIMARY KEY AUTOINCREMENT,
    charge_id       text NOT NULL,
    output_index    integer NOT NULL,
    provider        text NOT NULL,
    provider_job_id text,
    charged_at      integer NOT NULL CHECK (charged_at BETWEEN -62135596800000000 AND 253402214400000000),
    opened_at       integer NOT NULL,
    opened_by       text NOT NULL,
    refund_by       integer NOT NULL,
    window_ends_at  integer NOT NULL,
    state           text NOT NULL CHECK (state IN ('open', 'held', 'refunded', 'recovered', 'relinked', 'closed')),
    reason          text,
    due_at          integer NOT NULL,
    urgent_at       integer NOT NULL,
    lease_token     integer NOT NULL DEFAULT 0,
    leased_until    integer,
    questions       integer NOT NULL DEFAULT 0,
    first_asked_at  integer,
    last_asked_at   integer,
    waits           integer NOT NULL DEFAULT 0,
    resolved_at     integer,
    UNIQUE (charge_id, output_index),
    CONSTRAINT resolved_or_not CHECK ((state IN ('open', 'held')) = (resolved_at IS NULL))
) STRICT;
CREATE INDEX makegood_orphans_due ON makegood_orphans (provider, urgent_at, id, due_at)
    WHERE state IN ('open', 'held');
CREATE INDEX makegood_orphans_unresolved_job ON makegood_orphans (provider_job_id, provider)
    WHERE state IN ('open', 'held') AND provider_job_id IS NOT NULL;
CREATE INDEX makegood_orphans_unresolved_window ON makegood_orphans (window_ends_at)
    WHERE state IN ('open', 'held');

-- How an item was made good, by which rule, on what evidence, when and by whom. Superseded ones stay as history.
CREATE TABLE makegood_resolutions (
    id            integer PRIMARY KEY AUTOINCREMENT,
    charge_id     text NOT NULL,
    output_index  integer NOT NULL,
    kind          text NOT NULL CHECK (kind IN ('refund', 'recover', 'relink', 'close')),
    reason        text NOT NULL,
    rule          integer NOT NULL,
    resolved_at   integer NOT NULL,
    decided_by    text NOT NULL,
    answer_id     integer REFERENCES makegood_answers,
    pass_id       integer REFERENCES makegood_passes,
    superseded_at integer
) STRICT;
CREATE UNIQUE INDEX one_current_resolution_an_item ON makegood_resolutions (charge_id, output_index)
    WHERE superseded_at IS NULL;
CREATE INDEX makegood_resolutions_superseded ON makegood_resolutions (charge_id) WHERE superseded_at IS NOT NULL;

-- Credits given back: at most once an item (P01, P05).
CREATE TABLE makegood_refunds (
    id                   text PRIMARY KEY,
    resolution_id        integer NOT NULL UNIQUE REFERENCES makegood_resolutions,
    charge_id            text NOT NULL REFERENCES makegood_charges,
    output_index         integer NOT NULL,
    account_id           text NOT NULL,
    provider             text NOT NULL,
    model                text NOT NULL,
    subscription_credits integer NOT NULL CHECK (subscription_credits >= 0),
    wallet_credits       integer NOT NULL CHECK (wallet_credits >= 0),
    reason               text NOT NULL,
    refunded_at          integer NOT NULL,
    CONSTRAINT one_refund_an_item UNIQUE (charge_id, output_index),
    CONSTRAINT a_refund_gives_something CHECK (subscription_credits + wallet_credits > 0)
) STRICT;
CREATE INDEX makegood_refunds_by_time ON makegood_refunds (refunded_at);

-- Outputs brought home (recover) or put back where they belong (relink, P13).
CREATE TABLE makegood_recoveries (
    id                integer PRIMARY KEY AUTOINCREMENT,
    resolution_id     integer NOT NULL UNIQUE REFERENCES makegood_resolutions,
    charge_id         text NOT NULL,
    output_index      integer NOT NULL,
    kind              text NOT NULL CHECK (kind IN ('recover', 'relink')),
    provider          text NOT NULL,
    stored_output_id  text NOT NULL,
    from_charge_id    text,
    from_output_index integer,
    uri               text,
    size_bytes        integer,
    sha256            text,
    content_type      text,
    declared_type     text,
    source_host       text,
    recovered_at      integer NOT NULL
) STRICT;
CREATE INDEX makegood_recoveries_by_time ON makegood_recoveries (recovered_at);

-- Everything that happened to an orphan, in order.
CREATE TABLE makegood_orphan_events (
    id           integer PRIMARY KEY AUTOINCREMENT,
    orphan_id    integer NOT NULL REFERENCES makegood_orphans,
    charge_id    text NOT NULL,
    output_index integer NOT NULL,
    at           integer NOT NULL,
    kind         text NOT NULL,
    reason       text,
    rule         integer,
    detail       text,
    answer_id    integer REFERENCES makegood_answers,
    pass_id      integer REFERENCES makegood_passes,
    lease_token  integer
) STRICT;
CREATE INDEX makegood_orphan_events_by_item ON makegood_orphan_events (charge_id, output_index, id);

-- The one brake of all processes. Locked by every settle that refunds, so that limits hold across them all.
CREATE TABLE makegood_brake (
    id          integer PRIMARY KEY CHECK (id = 1),
    engaged_at  integer,
    reason      text,
    released_at integer
) STRICT;
INSERT INTO makegood_brake (id) VALUES (1);

-- When the brake was pulled and released, by whom and why.
CREATE TABLE makegood_brake_events (
    id      integer PRIMARY KEY AUTOINCREMENT,
    at      integer NOT NULL,
    kind    text NOT NULL CHECK (kind IN ('engaged', 'released')),
    by_whom text NOT NULL,
    reason  text NOT NULL
) STRICT;

-- Running totals for metrics, raised in the transaction that they count, so that no pass has to count a table.
CREATE TABLE makegood_counters (
    metric  text NOT NULL,
    label_a text NOT NULL,
    label_b text NOT NULL,
    value   integer NOT NULL,
    PRIMARY KEY (metric, label_a, label_b)
) STRICT;

-- Only ever added to. INSERT OR REPLACE slips past UPDATE and DELETE triggers, so a second row of one key is refused too.
CREATE TRIGGER makegood_refunds_never_changed BEFORE UPDATE ON makegood_refunds
BEGIN SELECT RAISE(ABORT, 'makegood_refunds is only ever added to (UPDATE refused)'); END;
CREATE TRIGGER makegood_refunds_never_removed BEFORE DELETE ON makegood_refunds
BEGIN SELECT RAISE(ABORT, 'makegood_refunds is only ever added to (DELETE refused)'); END;
CREATE TRIGGER makegood_refunds_never_replaced BEFORE INSERT ON makegood_refunds
WHEN EXISTS (SELECT 1 FROM makegood_refunds WHERE id = NEW.id OR (charge_id = NEW.charge_id AND output_index = NEW.output_index) OR resolution_id = NEW.resolution_id)
BEGIN SELECT RAISE(ABORT, 'makegood_refunds is only ever added to (a second row of one key refused)'); END;
CREATE TRIGGER makegood_recoveries_never_changed BEFORE UPDATE ON makegood_recoveries
BEGIN SELECT RAISE(ABORT, 'makegood_recoveries is only ever added to (UPDATE refused)'); END;
CREATE TRIGGER makegood_recoveries_never_removed BEFORE DELETE ON makegood_recoveries
BEGIN SELECT RAISE(ABORT, 'makegood_recoveries is only ever added to (DELETE refused)'); END;
CREATE TRIGGER makegood_recoveries_never_replaced BEFORE INSERT ON makegood_recoveries
WHEN EXISTS (SELECT 1 FROM makegood_recoveries WHERE id = NEW.id OR resolution_id = NEW.resolution_id)
BEGIN SELECT RAISE(ABORT, 'makegood_recoveries is only ever added to (a second row of one key refused)'); END;
CREATE TRIGGER makegood_orphan_events_never_changed BEFORE UPDATE ON makegood_orphan_events
BEGIN SELECT RAISE(ABORT, 'makegood_orphan_events is only ever added to (UPDATE refused)'); END;
CREATE TRIGGER makegood_orphan_events_never_removed BEFORE DELETE ON makegood_orphan_events
BEGIN SELECT RAISE(ABORT, 'makegood_orphan_events is only ever added to (DELETE refused)'); END;
CREATE TRIGGER makegood_orphan_events_never_replaced BEFORE INSERT ON makegood_orphan_events
WHEN EXISTS (SELECT 1 FROM makegood_orphan_events WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'makegood_orphan_events is only ever added to (a second row of one key refused)'); END;
CREATE TRIGGER makegood_answers_never_changed BEFORE UPDATE ON makegood_answers
BEGIN SELECT RAISE(ABORT, 'makegood_answers is only ever added to (UPDATE refused)'); END;
CREATE TRIGGER makegood_answers_never_removed BEFORE DELETE ON makegood_answers
BEGIN SELECT RAISE(ABORT, 'makegood_answers is only ever added to (DELETE refused)'); END;
CREATE TRIGGER makegood_answers_never_replaced BEFORE INSERT ON makegood_answers
WHEN EXISTS (SELECT 1 FROM makegood_answers WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'makegood_answers is only ever added to (a second row of one key refused)'); END;
CREATE TRIGGER makegood_brake_events_never_changed BEFORE UPDATE ON makegood_brake_events
BEGIN SELECT RAISE(ABORT, 'makegood_brake_events is only ever added to (UPDATE refused)'); END;
CREATE TRIGGER makegood_brake_events_never_removed BEFORE DELETE ON makegood_brake_events
BEGIN SELECT RAISE(ABORT, 'makegood_brake_events is only ever added to (DELETE refused)'); END;
CREATE TRIGGER makegood_brake_events_never_replaced BEFORE INSERT ON makegood_brake_events
WHEN EXISTS (SELECT 1 FROM makegood_brake_events WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'makegood_brake_events is only ever added to (a second row of one key refused)'); END;

-- A resolution never changes but for being superseded, once; a refund never.
CREATE TRIGGER makegood_resolutions_only_superseded BEFORE UPDATE ON makegood_resolutions
WHEN NOT (OLD.superseded_at IS NULL AND NEW.superseded_at IS NOT NULL AND OLD.kind <> 'refund'
          AND (NEW.id, NEW.charge_id, NEW.output_index, NEW.kind, NEW.reason, NEW.rule, NEW.resolved_at, NEW.decided_by)
            = (OLD.id, OLD.charge_id, OLD.output_index, OLD.kind, OLD.reason, OLD.rule, OLD.resolved_at, OLD.decided_by)
          AND NEW.answer_id IS OLD.answer_id AND NEW.pass_id IS OLD.pass_id)
BEGIN SELECT RAISE(ABORT, 'makegood_resolutions: a resolution is never changed, a refund never superseded'); END;
CREATE TRIGGER makegood_resolutions_never_removed BEFORE DELETE ON makegood_resolutions
BEGIN SELECT RAISE(ABORT, 'makegood_resolutions: a resolution is never removed'); END;
CREATE TRIGGER makegood_resolutions_never_replaced BEFORE INSERT ON makegood_resolutions
WHEN EXISTS (SELECT 1 FROM makegood_resolutions
             WHERE id = NEW.id OR (charge_id = NEW.charge_id AND output_index = NEW.output_index AND superseded_at IS NULL))
BEGIN SELECT RAISE(ABORT, 'makegood_resolutions: an item has at most one current resolution'); END;

-- Views for people.

-- What happened to a charge, with times: deduction, detection, refund or recovery (P21).
CREATE VIEW billing_activity AS
SELECT c.id AS charge_id, NULL AS output_index, c.account_id, c.charged_at AS at,
       'deduction' AS activity, -(c.subscription_credits + c.wallet_credits) AS credits, NULL AS reason
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

-- Every item with what became of it; a refunded one is not billable (P04), whoever refunded it.
CREATE VIEW usage_history AS
SELECT i.charge_id, i.output_index, c.account_id, c.project_id, c.node_id, c.provider, c.model, c.charged_at, i.credits,
       CASE WHEN r.id IS NOT NULL OR EXISTS (SELECT 1 FROM ledger_entries l
                 WHERE l.kind = 'refund' AND l.charge_id = i.charge_id AND (l.output_index = i.output_index OR l.output_index IS NULL)
                   AND NOT EXISTS (SELECT 1 FROM makegood_refunds ours WHERE ours.id = l.refund_id)) THEN 'refunded'
            WHEN EXISTS (SELECT 1 FROM makegood_deliveries m
                 WHERE m.charge_id = i.charge_id AND m.output_index = i.output_index) THEN 'delivered'
            WHEN o.state IN ('open', 'held') THEN 'being_looked_into'
            ELSE 'expected' END AS status,
       (r.id IS NULL AND NOT EXISTS (SELECT 1 FROM ledger_entries l
                 WHERE l.kind = 'refund' AND l.charge_id = i.charge_id AND (l.output_index = i.output_index OR l.output_index IS NULL)
                   AND NOT EXISTS (SELECT 1 FROM makegood_refunds ours WHERE ours.id = l.refund_id))) AS billable
FROM charge_items i
JOIN charges c ON c.id = i.charge_id
LEFT JOIN makegood_refunds r ON r.charge_id = i.charge_id AND r.output_index = i.output_index
LEFT JOIN makegood_orphans o ON o.charge_id = i.charge_id AND o.output_index = i.output_index;

-- The billable total of each account (P04).
CREATE VIEW billable_usage AS
SELECT account_id, count(*) AS items, sum(credits) AS credits
FROM usage_history WHERE billable GROUP BY account_id;
