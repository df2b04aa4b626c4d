-- What the brake counts, as sums per provider and minute, so that counting reads at most 1,440 rows per provider and not a
-- day's refunds. Settle adds to them in its own transaction, and is the only writer meanwhile.
-- A limit per account needs a second table of this shape.

CREATE TABLE makegood_refund_sums (
    provider   text NOT NULL,
    slot       integer NOT NULL CHECK (slot BETWEEN 0 AND 2879),
    began_at   integer NOT NULL,
    refunds    integer NOT NULL CHECK (refunds >= 0),
    credits    integer NOT NULL CHECK (credits >= 0),
    own_faults integer NOT NULL CHECK (own_faults >= 0),
    PRIMARY KEY (provider, slot)
) STRICT;
CREATE INDEX makegood_refund_sums_by_time ON makegood_refund_sums (began_at);

-- What the last day's refunds count for. Dated ahead of now, they count too, as they did until now. total() and not sum(), which
-- breaks at the end of the range; the cast stops there.
INSERT INTO makegood_refund_sums (provider, slot, began_at, refunds, credits, own_faults)
SELECT m.provider, (m.began_at / 60000000) % 2880, max(m.began_at), count(*) FILTER (WHERE m.counts),
       CAST(total(m.credits) FILTER (WHERE m.counts) AS integer), count(*) FILTER (WHERE m.own_fault)
FROM (
    SELECT f.provider, f.refunded_at - f.refunded_at % 60000000 AS began_at, f.subscription_credits + f.wallet_credits AS credits,
           f.refunded_at >= coalesce(b.released_at, 0) OR b.released_at > unixepoch('now') * 1000000 AS counts,
           (f.refunded_at >= coalesce(b.own_faults_released_at, 0) OR b.own_faults_released_at > unixepoch('now') * 1000000)
           AND (r.reason = 'recovery_failed'
                OR r.reason = 'unconfirmed' AND a.verdict IN ('unauthorized', 'unknown_provider', 'unreadable')) IS TRUE AS own_fault
    FROM makegood_refunds f
    CROSS JOIN makegood_brake b
    JOIN makegood_resolutions r ON r.id = f.resolution_id
    LEFT JOIN makegood_answers a ON a.id = r.answer_id
    WHERE f.refunded_at >= (unixepoch('now') - 86400) * 1000000
) AS m
GROUP BY m.provider, (m.began_at / 60000000) % 2880;

-- PostgreSQL locks its rows in every settle. SQLite has one writer: it stays empty.
CREATE TABLE makegood_accounts (
    account_id text PRIMARY KEY
) STRICT;

-- What a release of the brake makes due, in portions.
CREATE INDEX makegood_orphans_held_by_brake ON makegood_orphans (id) WHERE state = 'held' AND reason = 'brake';
