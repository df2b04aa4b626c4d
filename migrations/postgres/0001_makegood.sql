-- makegood's own tables. Nothing else writes them; no foreign key leads into the contract relations, which may be views.
-- The rules that money rests on stand here as constraints, not only in code:
--   one refund an item, never more refunded per charge and bucket than was drawn, one current resolution an item,
--   refunds, recoveries, answers and events only ever added to.

-- Which job an item was bought from: its own, else the charge's; an empty one is none.
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
COMMENT ON VIEW makegood_items IS 'Items with the job they were bought from.';

-- Rule 1 in SQL: linked to the item, of its job where it names one, in its place or moved by a person; deleted or not.
-- facts.rs says the same in Rust; a test compares the two.
CREATE VIEW makegood_deliveries AS
SELECT i.charge_id, i.output_index, s.id AS stored_output_id, s.stored_at
FROM makegood_items i
JOIN stored_outputs s ON s.charge_id = i.charge_id AND s.output_index = i.output_index
WHERE (i.provider_job_id IS NULL
       OR (s.provider = i.provider AND s.provider_job_id = i.provider_job_id
           AND s.provider_output_index = i.provider_output_index))
  AND ((s.project_id = i.project_id AND s.node_id = i.node_id) OR s.moved_at IS NOT NULL);
COMMENT ON VIEW makegood_deliveries IS 'Outputs that are where their item expects them (rule 1).';

CREATE TABLE makegood_passes (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mode        text NOT NULL CHECK (mode IN ('run', 'schedule', 'by_hand')),
    started_at  timestamptz NOT NULL,
    finished_at timestamptz,
    outcome     text CHECK (outcome IN ('done', 'failed', 'stopped')),
    report      text
);
COMMENT ON TABLE makegood_passes IS 'One row a pass. No finished_at: still running, or killed; either way its work stands as far as it was committed.';
CREATE INDEX makegood_passes_done ON makegood_passes (finished_at) WHERE outcome = 'done';

CREATE TABLE makegood_cursors (
    name       text PRIMARY KEY,
    position   timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
COMMENT ON TABLE makegood_cursors IS 'How far each scan has looked; never moves back by itself.';

CREATE TABLE makegood_charges (
    charge_id             text PRIMARY KEY,
    account_id            text NOT NULL,
    subscription_drawn    bigint NOT NULL CHECK (subscription_drawn >= 0),
    wallet_drawn          bigint NOT NULL CHECK (wallet_drawn >= 0),
    subscription_refunded bigint NOT NULL DEFAULT 0,
    wallet_refunded       bigint NOT NULL DEFAULT 0,
    CONSTRAINT never_more_refunded_than_drawn_subscription CHECK (subscription_refunded BETWEEN 0 AND subscription_drawn),
    CONSTRAINT never_more_refunded_than_drawn_wallet CHECK (wallet_refunded BETWEEN 0 AND wallet_drawn)
);
COMMENT ON TABLE makegood_charges IS 'What was drawn for a charge and what makegood gave back (P03). Locked first in every settle.';

CREATE TABLE makegood_answers (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    provider        text NOT NULL,
    provider_job_id text NOT NULL,
    asked_at        timestamptz NOT NULL,
    verdict         text NOT NULL,
    class           text,
    code            text,
    message         text,
    offered         bigint NOT NULL,
    request         text,
    http_status     bigint,
    excerpt         text
);
COMMENT ON TABLE makegood_answers IS 'What the provider said about a job, as it was read and as it stood (cut, redacted). Evidence of every decision.';
CREATE INDEX makegood_answers_by_job ON makegood_answers (provider_job_id, provider);

CREATE TABLE makegood_orphans (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    charge_id       text NOT NULL,
    output_index    bigint NOT NULL,
    provider        text NOT NULL,
    provider_job_id text,
    charged_at      timestamptz NOT NULL CHECK (charged_at BETWEEN '0001-01-01T00:00:00Z' AND '9999-12-31T00:00:00Z'),
    opened_at       timestamptz NOT NULL,
    opened_by       text NOT NULL,
    refund_by       timestamptz NOT NULL,
    window_ends_at  timestamptz NOT NULL,
    state           text NOT NULL CHECK (state IN ('open', 'held', 'refunded', 'recovered', 'relinked', 'closed')),
    reason          text,
    due_at          timestamptz NOT NULL,
    urgent_at       timestamptz NOT NULL,
    lease_token     bigint NOT NULL DEFAULT 0,
    leased_until    timestamptz,
    questions       bigint NOT NULL DEFAULT 0,
    first_asked_at  timestamptz,
    last_asked_at   timestamptz,
    waits           bigint NOT NULL DEFAULT 0,
    resolved_at     timestamptz,
    UNIQUE (charge_id, output_index),
    CONSTRAINT resolved_or_not CHECK ((state IN ('open', 'held')) = (resolved_at IS NULL))
);
COMMENT ON TABLE makegood_orphans IS 'Items that had no stored output after their grace, and what became of them. One row an item, reopened if need be.';
COMMENT ON COLUMN makegood_orphans.output_index IS 'The item; -1: the charge as a whole, which has no items.';
COMMENT ON COLUMN makegood_orphans.refund_by IS 'When the benefit of the doubt ends; two hours after opening for one that was opened late.';
COMMENT ON COLUMN makegood_orphans.urgent_at IS 'The earlier of refund_by and the known expiry of the output: the order of claiming.';
COMMENT ON COLUMN makegood_orphans.lease_token IS 'Raised by every claim; settle must name the current one.';
CREATE INDEX makegood_orphans_due ON makegood_orphans (provider, urgent_at, id) INCLUDE (due_at, leased_until)
    WHERE state IN ('open', 'held');
CREATE INDEX makegood_orphans_unresolved_job ON makegood_orphans (provider_job_id, provider)
    WHERE state IN ('open', 'held') AND provider_job_id IS NOT NULL;
CREATE INDEX makegood_orphans_unresolved_window ON makegood_orphans (window_ends_at)
    WHERE state IN ('open', 'held');

CREATE TABLE makegood_resolutions (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    charge_id     text NOT NULL,
    output_index  bigint NOT NULL,
    kind          text NOT NULL CHECK (kind IN ('refund', 'recover', 'relink', 'close')),
    reason        text NOT NULL,
    rule          bigint NOT NULL,
    resolved_at   timestamptz NOT NULL,
    decided_by    text NOT NULL,
    answer_id     bigint REFERENCES makegood_answers,
    pass_id       bigint REFERENCES makegood_passes,
    superseded_at timestamptz
);
COMMENT ON TABLE makegood_resolutions IS 'How an item was made good, by which rule, on what evidence, when and by whom. Superseded ones stay as history.';
CREATE UNIQUE INDEX one_current_resolution_an_item ON makegood_resolutions (charge_id, output_index)
    WHERE superseded_at IS NULL;
CREATE INDEX makegood_resolutions_superseded ON makegood_resolutions (charge_id) WHERE superseded_at IS NOT NULL;

CREATE TABLE makegood_refunds (
    id                   text PRIMARY KEY,
    resolution_id        bigint NOT NULL UNIQUE REFERENCES makegood_resolutions,
    charge_id            text NOT NULL REFERENCES makegood_charges,
    output_index         bigint NOT NULL,
    account_id           text NOT NULL,
    provider             text NOT NULL,
    model                text NOT NULL,
    subscription_credits bigint NOT NULL CHECK (subscription_credits >= 0),
    wallet_credits       bigint NOT NULL CHECK (wallet_credits >= 0),
    reason               text NOT NULL,
    refunded_at          timestamptz NOT NULL,
    CONSTRAINT one_refund_an_item UNIQUE (charge_id, output_index),
    CONSTRAINT a_refund_gives_something CHECK (subscription_credits + wallet_credits > 0)
);
COMMENT ON TABLE makegood_refunds IS 'Credits given back: at most once an item (P01, P05).';
CREATE INDEX makegood_refunds_by_time ON makegood_refunds (refunded_at);

CREATE TABLE makegood_recoveries (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    resolution_id     bigint NOT NULL UNIQUE REFERENCES makegood_resolutions,
    charge_id         text NOT NULL,
    output_index      bigint NOT NULL,
    kind              text NOT NULL CHECK (kind IN ('recover', 'relink')),
    provider          text NOT NULL,
    stored_output_id  text NOT NULL,
    from_charge_id    text,
    from_output_index bigint,
    uri               text,
    size_bytes        bigint,
    sha256            text,
    content_type      text,
    declared_type     text,
    source_host       text,
    recovered_at      timestamptz NOT NULL
);
COMMENT ON TABLE makegood_recoveries IS 'Outputs brought home (recover) or put back where they belong (relink, P13).';
CREATE INDEX makegood_recoveries_by_time ON makegood_recoveries (recovered_at);

CREATE TABLE makegood_orphan_events (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    orphan_id    bigint NOT NULL REFERENCES makegood_orphans,
    charge_id    text NOT NULL,
    output_index bigint NOT NULL,
    at           timestamptz NOT NULL,
    kind         text NOT NULL,
    reason       text,
    rule         bigint,
    detail       text,
    answer_id    bigint REFERENCES makegood_answers,
    pass_id      bigint REFERENCES makegood_passes,
    lease_token  bigint
);
COMMENT ON TABLE makegood_orphan_events IS 'Everything that happened to an orphan, in order.';
CREATE INDEX makegood_orphan_events_by_item ON makegood_orphan_events (charge_id, output_index, id);

CREATE TABLE makegood_brake (
    id          bigint PRIMARY KEY CHECK (id = 1),
    engaged_at  timestamptz,
    reason      text,
    released_at timestamptz
);
COMMENT ON TABLE makegood_brake IS 'The one brake of all processes. Locked by every settle that refunds, so that limits hold across them all.';
INSERT INTO makegood_brake (id) VALUES (1);

CREATE TABLE makegood_brake_events (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL,
    kind    text NOT NULL CHECK (kind IN ('engaged', 'released')),
    by_whom text NOT NULL,
    reason  text NOT NULL
);
COMMENT ON TABLE makegood_brake_events IS 'When the brake was pulled and released, by whom and why.';

CREATE TABLE makegood_counters (
    metric  text NOT NULL,
    label_a text NOT NULL,
    label_b text NOT NULL,
    value   bigint NOT NULL,
    PRIMARY KEY (metric, label_a, label_b)
);
COMMENT ON TABLE makegood_counters IS 'Running totals for metrics, raised in the transaction that they count, so that no pass has to count a table.';

-- Adds to balances one after the other, in the order of the list, which is that of the keys: so no two settles wait for
-- each other in a ring, over tables and over views alike. Returns a row for each balance row that was hit.
CREATE FUNCTION makegood_add_to_balances(list jsonb) RETURNS TABLE (account_id text, bucket text) LANGUAGE plpgsql AS $$
DECLARE
    due record;
BEGIN
    FOR due IN
        SELECT d.value ->> 'account_id' AS account_id, d.value ->> 'bucket' AS bucket, (d.value ->> 'credits')::bigint AS credits
        FROM jsonb_array_elements(list) WITH ORDINALITY AS d(value, nth)
        ORDER BY d.nth
    LOOP
        RETURN QUERY
            UPDATE balances AS b SET credits = b.credits + due.credits
            WHERE b.account_id = due.account_id AND b.bucket = due.bucket
            RETURNING b.account_id::text, b.bucket::text;
    END LOOP;
END
$$;
COMMENT ON FUNCTION makegood_add_to_balances(jsonb) IS 'Gives credits back to balances in the order of their keys: one round trip a settle (P03).';

CREATE FUNCTION makegood_only_added_to() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is only ever added to (% refused)', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER only_added_to BEFORE UPDATE OR DELETE ON makegood_refunds FOR EACH ROW EXECUTE FUNCTION makegood_only_added_to();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON makegood_refunds FOR EACH STATEMENT EXECUTE FUNCTION makegood_only_added_to();
CREATE TRIGGER only_added_to BEFORE UPDATE OR DELETE ON makegood_recoveries FOR EACH ROW EXECUTE FUNCTION makegood_only_added_to();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON makegood_recoveries FOR EACH STATEMENT EXECUTE FUNCTION makegood_only_added_to();
CREATE TRIGGER only_added_to BEFORE UPDATE OR DELETE ON makegood_orphan_events FOR EACH ROW EXECUTE FUNCTION makegood_only_added_to();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON makegood_orphan_events FOR EACH STATEMENT EXECUTE FUNCTION makegood_only_added_to();
CREATE TRIGGER only_added_to BEFORE UPDATE OR DELETE ON makegood_answers FOR EACH ROW EXECUTE FUNCTION makegood_only_added_to();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON makegood_answers FOR EACH STATEMENT EXECUTE FUNCTION makegood_only_added_to();
CREATE TRIGGER only_added_to BEFORE UPDATE OR DELETE ON makegood_brake_events FOR EACH ROW EXECUTE FUNCTION makegood_only_added_to();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON makegood_brake_events FOR EACH STATEMENT EXECUTE FUNCTION makegood_only_added_to();

-- A resolution never changes but for being superseded, once.
CREATE FUNCTION makegood_resolution_only_superseded() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.superseded_at IS NULL AND NEW.superseded_at IS NOT NULL
       AND (NEW.id, NEW.charge_id, NEW.output_index, NEW.kind, NEW.reason, NEW.rule, NEW.resolved_at, NEW.decided_by)
         = (OLD.id, OLD.charge_id, OLD.output_index, OLD.kind, OLD.reason, OLD.rule, OLD.resolved_at, OLD.decided_by)
       AND NEW.answer_id IS NOT DISTINCT FROM OLD.answer_id AND NEW.pass_id IS NOT DISTINCT FROM OLD.pass_id
       AND OLD.kind <> 'refund' THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'makegood_resolutions: a resolution is never changed, a refund never superseded (% refused)', TG_OP
        USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER only_superseded BEFORE UPDATE OR DELETE ON makegood_resolutions
    FOR EACH ROW EXECUTE FUNCTION makegood_resolution_only_superseded();

-- Views for people.

CREATE VIEW billing_activity AS
SELECT c.id AS charge_id, NULL::bigint AS output_index, c.account_id, c.charged_at AS at,
       'deduction' AS activity, -(c.subscription_credits + c.wallet_credits) AS credits, NULL::text AS reason
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
COMMENT ON VIEW billing_activity IS 'What happened to a charge, with times: deduction, detection, refund or recovery (P21).';

CREATE VIEW usage_history AS
SELECT i.charge_id, i.output_index, c.account_id, c.project_id, c.node_id, c.provider, c.model, c.charged_at, i.credits,
       CASE WHEN r.id IS NOT NULL OR p.charge_id IS NOT NULL THEN 'refunded'
            WHEN d.charge_id IS NOT NULL THEN 'delivered'
            WHEN o.state IN ('open', 'held') THEN 'being_looked_into'
            ELSE 'expected' END AS status,
       (r.id IS NULL AND p.charge_id IS NULL) AS billable
FROM charge_items i
JOIN charges c ON c.id = i.charge_id
LEFT JOIN makegood_refunds r ON r.charge_id = i.charge_id AND r.output_index = i.output_index
LEFT JOIN LATERAL (
    SELECT l.charge_id FROM ledger_entries l
    WHERE l.kind = 'refund' AND l.charge_id = i.charge_id AND (l.output_index = i.output_index OR l.output_index IS NULL)
      AND NOT EXISTS (SELECT 1 FROM makegood_refunds ours WHERE ours.id = l.refund_id)
    LIMIT 1) p ON true
LEFT JOIN LATERAL (
    SELECT m.charge_id FROM makegood_deliveries m
    WHERE m.charge_id = i.charge_id AND m.output_index = i.output_index LIMIT 1) d ON true
LEFT JOIN makegood_orphans o ON o.charge_id = i.charge_id AND o.output_index = i.output_index;
COMMENT ON VIEW usage_history IS 'Every item with what became of it; a refunded one is not billable (P04), whoever refunded it.';

CREATE VIEW billable_usage AS
SELECT account_id, count(*) AS items, sum(credits)::bigint AS credits
FROM usage_history WHERE billable GROUP BY account_id;
COMMENT ON VIEW billable_usage IS 'The billable total of each account (P04).';
