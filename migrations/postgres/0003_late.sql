-- What becomes known after a refund: jobs that are asked about again, successes that came too late, and a way for
-- platforms to store an output under the lock that settle takes. Nothing here takes anything back from a customer.

CREATE TABLE makegood_late_questions (
    orphan_id       bigint PRIMARY KEY REFERENCES makegood_orphans,
    charge_id       text NOT NULL,
    output_index    bigint NOT NULL,
    provider        text NOT NULL,
    provider_job_id text,
    refunded_at     timestamptz NOT NULL,
    due_at          timestamptz NOT NULL,
    asked           bigint NOT NULL DEFAULT 0,
    last_asked_at   timestamptz,
    lease_token     bigint NOT NULL DEFAULT 0,
    leased_until    timestamptz,
    ended_at        timestamptz,
    ended_because   text,
    CONSTRAINT ended_for_a_reason CHECK ((ended_at IS NULL) = (ended_because IS NULL))
);
COMMENT ON TABLE makegood_late_questions IS 'Items refunded without proof, whose providers are asked again later. One row an item, made with its refund; ended after the last time or the first certain answer.';
COMMENT ON COLUMN makegood_late_questions.provider_job_id IS 'The job; null until one is on record.';
COMMENT ON COLUMN makegood_late_questions.ended_because IS 'succeeded, stored, did_not, asked_enough, duplicate_job, unreadable_row.';
-- Small however large the table grows: what has ended is not in them.
CREATE INDEX makegood_late_questions_due ON makegood_late_questions (provider, due_at, orphan_id) WHERE ended_at IS NULL;
CREATE INDEX makegood_late_questions_job ON makegood_late_questions (provider_job_id, provider)
    WHERE ended_at IS NULL AND provider_job_id IS NOT NULL;
CREATE INDEX makegood_late_questions_jobless ON makegood_late_questions (charge_id)
    WHERE ended_at IS NULL AND provider_job_id IS NULL;

CREATE TABLE makegood_late_successes (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    charge_id        text NOT NULL,
    output_index     bigint NOT NULL,
    refund_id        text NOT NULL REFERENCES makegood_refunds,
    kind             text NOT NULL CHECK (kind IN ('never_stored', 'stored_late')),
    provider         text NOT NULL,
    model            text NOT NULL,
    provider_job_id  text,
    noticed_at       timestamptz NOT NULL,
    noticed_by       text NOT NULL CHECK (noticed_by IN ('question', 'look', 'makegood_store_output')),
    answer_id        bigint REFERENCES makegood_answers,
    stored_output_id text,
    CONSTRAINT one_late_success_an_item UNIQUE (charge_id, output_index),
    CONSTRAINT stored_or_said CHECK (CASE kind WHEN 'stored_late' THEN stored_output_id IS NOT NULL ELSE answer_id IS NOT NULL END)
);
COMMENT ON TABLE makegood_late_successes IS 'Refunded items whose job turned out to have succeeded: the provider says so (never_stored), or their output was stored after the refund (stored_late, P20). At most one row an item; the refund stays.';
CREATE INDEX makegood_late_successes_by_time ON makegood_late_successes (noticed_at);
CREATE TRIGGER only_added_to BEFORE UPDATE OR DELETE ON makegood_late_successes FOR EACH ROW EXECUTE FUNCTION makegood_only_added_to();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON makegood_late_successes FOR EACH STATEMENT EXECUTE FUNCTION makegood_only_added_to();

-- Stores an output of an item in its place, under the lock that settle takes first: either settle sees it and refunds
-- nothing, or this sees the refund and notes a late success. Returns
--   'stored'         nothing was refunded, and now nothing will be;
--   'stored_late'    makegood had refunded the item: the output is kept and so is the refund (P20);
--   'already_there'  the item has its output already: nothing was written.
-- The row of makegood_charges stays locked until the caller's transaction ends: call it last, or on its own.
CREATE FUNCTION makegood_store_output(
    output_id text, charge_id text, output_index bigint, uri text, content_type text, size_bytes bigint, sha256 text,
    provider_job_id text DEFAULT NULL, provider_output_index bigint DEFAULT NULL
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$
#variable_conflict use_column
DECLARE
    item record;
    refund record;
    job text;
    job_output bigint;
    at timestamptz;
BEGIN
    SELECT i.provider, i.provider_job_id, i.provider_output_index, c.account_id, c.project_id, c.node_id, c.model,
           c.subscription_credits, c.wallet_credits
    INTO item
    FROM makegood_items i
    JOIN charges c ON c.id = i.charge_id
    WHERE i.charge_id = makegood_store_output.charge_id AND i.output_index = makegood_store_output.output_index;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'makegood_store_output: there is no item %/%', makegood_store_output.charge_id, makegood_store_output.output_index
            USING ERRCODE = 'no_data_found';
    END IF;
    job := coalesce(makegood_store_output.provider_job_id, item.provider_job_id);
    job_output := coalesce(makegood_store_output.provider_output_index, item.provider_output_index, 0);
    IF job IS NULL THEN
        RAISE EXCEPTION 'makegood_store_output: item %/% has no provider job on record: name it (provider_job_id)', makegood_store_output.charge_id, makegood_store_output.output_index
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF item.provider_job_id IS NOT NULL AND (job, job_output) <> (item.provider_job_id, item.provider_output_index) THEN
        RAISE EXCEPTION 'makegood_store_output: item %/% was bought as output % of job %, not as output % of job %',
            makegood_store_output.charge_id, makegood_store_output.output_index, item.provider_output_index, item.provider_job_id, job_output, job
            USING ERRCODE = 'invalid_parameter_value';
    END IF;

    -- Settle's first lock. Every statement after this one sees what was committed before it was ours.
    INSERT INTO makegood_charges (charge_id, account_id, subscription_drawn, wallet_drawn)
    VALUES (makegood_store_output.charge_id, item.account_id, greatest(item.subscription_credits, 0), greatest(item.wallet_credits, 0))
    ON CONFLICT (charge_id) DO UPDATE SET account_id = makegood_charges.account_id;

    IF EXISTS (SELECT 1 FROM makegood_deliveries d
               WHERE d.charge_id = makegood_store_output.charge_id AND d.output_index = makegood_store_output.output_index) THEN
        RETURN 'already_there';
    END IF;
    at := clock_timestamp();
    INSERT INTO stored_outputs (id, charge_id, output_index, provider, provider_job_id, provider_output_index, project_id, node_id,
                                uri, content_type, size_bytes, sha256, stored_at)
    VALUES (makegood_store_output.output_id, makegood_store_output.charge_id, makegood_store_output.output_index, item.provider,
            job, job_output, item.project_id, item.node_id, makegood_store_output.uri, makegood_store_output.content_type,
            makegood_store_output.size_bytes, makegood_store_output.sha256, at);

    SELECT r.id, r.provider, r.model, o.id AS orphan_id
    INTO refund
    FROM makegood_refunds r
    JOIN makegood_orphans o ON o.charge_id = r.charge_id AND o.output_index = r.output_index
    WHERE r.charge_id = makegood_store_output.charge_id AND r.output_index = makegood_store_output.output_index;
    IF NOT FOUND THEN
        RETURN 'stored';
    END IF;
    INSERT INTO makegood_orphan_events (orphan_id, charge_id, output_index, at, kind, detail)
    VALUES (refund.orphan_id, makegood_store_output.charge_id, makegood_store_output.output_index, at, 'stored_late',
            'output ' || makegood_store_output.output_id || ' was stored after the refund');
    INSERT INTO makegood_late_successes (charge_id, output_index, refund_id, kind, provider, model, provider_job_id, noticed_at,
                                         noticed_by, stored_output_id)
    VALUES (makegood_store_output.charge_id, makegood_store_output.output_index, refund.id, 'stored_late', refund.provider,
            refund.model, job, at, 'makegood_store_output', makegood_store_output.output_id)
    ON CONFLICT (charge_id, output_index) DO NOTHING;
    IF FOUND THEN
        INSERT INTO makegood_counters AS c (metric, label_a, label_b, value)
        VALUES ('late_successes', refund.provider, 'stored_late', 1)
        ON CONFLICT (metric, label_a, label_b) DO UPDATE SET value = c.value + 1;
    END IF;
    RETURN 'stored_late';
END
$$;
COMMENT ON FUNCTION makegood_store_output(text, text, bigint, text, text, bigint, text, text, bigint) IS
    'For platforms: stores an output under the lock that settle takes, so that it can never cross with a refund (P20). Returns stored, stored_late or already_there.';
-- It runs with its owner's rights, so that a platform's role needs none on makegood's tables: nobody may call it who was not
-- let, and no table of the caller's own can stand in for one of these.
REVOKE ALL ON FUNCTION makegood_store_output(text, text, bigint, text, text, bigint, text, text, bigint) FROM PUBLIC;
DO $$
BEGIN
    EXECUTE format(
        'ALTER FUNCTION makegood_store_output(text, text, bigint, text, text, bigint, text, text, bigint) SET search_path TO %s, pg_temp',
        (SELECT string_agg(quote_ident(s.name), ', ' ORDER BY s.nth) FROM unnest(current_schemas(false)) WITH ORDINALITY AS s(name, nth)));
END
$$;

-- Credits near the ends of the range stop there instead of failing the whole view.
CREATE OR REPLACE VIEW billing_activity AS
SELECT c.id AS charge_id, NULL::bigint AS output_index, c.account_id, c.charged_at AS at,
       'deduction' AS activity,
       greatest(least(-(c.subscription_credits::numeric + c.wallet_credits), 9223372036854775807), -9223372036854775808)::bigint AS credits,
       NULL::text AS reason
FROM charges c
UNION ALL
SELECT e.charge_id, nullif(e.output_index, -1), c.account_id, e.at, 'failure_detected', 0, NULL
FROM makegood_orphan_events e JOIN charges c ON c.id = e.charge_id
WHERE e.kind = 'opened'
UNION ALL
SELECT r.charge_id, r.output_index, r.account_id, r.refunded_at, 'refund',
       least(r.subscription_credits::numeric + r.wallet_credits, 9223372036854775807)::bigint, r.reason
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

CREATE OR REPLACE VIEW billable_usage AS
SELECT account_id, count(*) AS items,
       greatest(least(sum(credits), 9223372036854775807), -9223372036854775808)::bigint AS credits
FROM usage_history WHERE billable GROUP BY account_id;
