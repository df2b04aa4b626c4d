-- What other roles read, or what runs with its owner's rights, looks nothing up on the search path
-- any more: relations are named with their schema, operators on the platform's columns with
-- pg_catalog. Until now a role that may create in a schema of the path could have its own operator
-- run by whoever read these views or called these functions (migration 0012 says how that is
-- avoided).

SELECT makegood_define(replace($definition$
CREATE OR REPLACE VIEW {makegood_items} AS
SELECT i.charge_id,
       i.output_index,
       i.credits,
       i.failed_at,
       c.provider,
       CASE WHEN coalesce(i.provider_job_id, c.provider_job_id) OPERATOR(pg_catalog.<>) ''::text
            THEN coalesce(i.provider_job_id, c.provider_job_id) END::{job_type} AS provider_job_id,
       coalesce(i.provider_output_index,
                CASE WHEN i.provider_job_id IS NULL THEN i.output_index ELSE 0 END) AS provider_output_index,
       c.project_id,
       c.node_id
FROM {charge_items} i
JOIN {charges} c ON c.id OPERATOR(pg_catalog.=) i.charge_id
$definition$, '{job_type}', (
    -- A view that is replaced keeps the types of its columns.
    SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
    WHERE a.attrelid = to_regclass('makegood_items') AND a.attname = 'provider_job_id')));

SELECT makegood_define($definition$
CREATE OR REPLACE VIEW {makegood_deliveries} AS
SELECT i.charge_id, i.output_index, s.id AS stored_output_id, s.stored_at
FROM {makegood_items} i
JOIN {stored_outputs} s ON s.charge_id OPERATOR(pg_catalog.=) i.charge_id
                       AND s.output_index OPERATOR(pg_catalog.=) i.output_index
WHERE (i.provider_job_id IS NULL
       OR (s.provider OPERATOR(pg_catalog.=) i.provider AND s.provider_job_id OPERATOR(pg_catalog.=) i.provider_job_id
           AND s.provider_output_index OPERATOR(pg_catalog.=) i.provider_output_index))
  AND ((s.project_id OPERATOR(pg_catalog.=) i.project_id AND s.node_id OPERATOR(pg_catalog.=) i.node_id)
       OR s.moved_at IS NOT NULL)
$definition$);

SELECT makegood_define($definition$
CREATE OR REPLACE VIEW {makegood_lost_outputs} AS
SELECT v.charge_id, v.output_index, v.recovery_id, v.kind, v.stored_output_id, v.recovered_at
FROM {makegood_proofs} v
JOIN {makegood_items} i ON i.charge_id OPERATOR(pg_catalog.=) v.charge_id AND i.output_index OPERATOR(pg_catalog.=) v.output_index
WHERE (SELECT count(*) FROM {makegood_deliveries} d
       WHERE d.charge_id OPERATOR(pg_catalog.=) v.charge_id AND d.output_index OPERATOR(pg_catalog.=) v.output_index) = 0
  AND CASE WHEN i.provider_job_id IS NULL THEN
          (SELECT count(*) FROM {stored_outputs} s
           WHERE s.charge_id OPERATOR(pg_catalog.=) v.charge_id AND s.output_index OPERATOR(pg_catalog.=) v.output_index AND s.deleted_at IS NULL) = 0
      ELSE
          (SELECT count(*) FROM {stored_outputs} s
           WHERE s.provider_job_id OPERATOR(pg_catalog.=) i.provider_job_id AND s.provider OPERATOR(pg_catalog.=) i.provider
             AND s.provider_output_index OPERATOR(pg_catalog.=) i.provider_output_index AND s.deleted_at IS NULL) = 0
      END
$definition$);

SELECT makegood_define($definition$
CREATE OR REPLACE VIEW {billing_activity} AS
SELECT c.id AS charge_id, NULL::bigint AS output_index, c.account_id, c.charged_at AS at,
       'deduction' AS activity,
       greatest(least(-(c.subscription_credits::numeric + c.wallet_credits::numeric), 9223372036854775807), -9223372036854775808)::bigint AS credits,
       NULL::text AS reason
FROM {charges} c
UNION ALL
SELECT e.charge_id, nullif(e.output_index, -1::bigint), c.account_id, e.at, 'failure_detected', 0, NULL
FROM {makegood_orphan_events} e JOIN {charges} c ON c.id OPERATOR(pg_catalog.=) e.charge_id
WHERE e.kind = 'opened'
UNION ALL
SELECT r.charge_id, r.output_index, r.account_id, r.refunded_at, 'refund',
       least(r.subscription_credits::numeric + r.wallet_credits::numeric, 9223372036854775807)::bigint, r.reason
FROM {makegood_refunds} r
UNION ALL
SELECT b.charge_id, b.output_index, b.account_id, b.reversed_at, 'refund_reversed',
       greatest(-(b.subscription_credits::numeric + b.wallet_credits::numeric), -9223372036854775808)::bigint, 'by_hand'
FROM {makegood_refund_reversals} b
UNION ALL
SELECT v.charge_id, v.output_index, c.account_id, v.recovered_at,
       CASE v.kind WHEN 'relink' THEN 'output_put_back' ELSE 'recovery' END, 0, s.reason
FROM {makegood_recoveries} v
JOIN {makegood_resolutions} s ON s.id = v.resolution_id
JOIN {charges} c ON c.id OPERATOR(pg_catalog.=) v.charge_id
UNION ALL
SELECT l.charge_id, l.output_index, l.account_id, l.posted_at, 'refund_by_platform', l.credits, NULL
FROM {ledger_entries} l
WHERE l.kind OPERATOR(pg_catalog.=) 'refund'::text AND NOT EXISTS (SELECT 1 FROM {makegood_refunds} r WHERE r.id OPERATOR(pg_catalog.=) l.refund_id)
$definition$);

SELECT makegood_define($definition$
CREATE OR REPLACE VIEW {usage_history} AS
SELECT i.charge_id, i.output_index, c.account_id, c.project_id, c.node_id, c.provider, c.model, c.charged_at, i.credits,
       CASE WHEN (r.id IS NOT NULL AND b.id IS NULL) OR p.charge_id IS NOT NULL THEN 'refunded'
            WHEN d.charge_id IS NOT NULL THEN 'delivered'
            WHEN b.id IS NOT NULL THEN 'refund_reversed'
            WHEN (o.state = 'open' OR o.state = 'held') THEN 'being_looked_into'
            WHEN v.charge_id IS NOT NULL THEN 'delivered'
            ELSE 'expected' END AS status,
       ((r.id IS NULL OR b.id IS NOT NULL) AND p.charge_id IS NULL) AS billable
FROM {charge_items} i
JOIN {charges} c ON c.id OPERATOR(pg_catalog.=) i.charge_id
LEFT JOIN {makegood_refunds} r ON r.charge_id OPERATOR(pg_catalog.=) i.charge_id AND r.output_index OPERATOR(pg_catalog.=) i.output_index
LEFT JOIN {makegood_refund_reversals} b ON b.refund_id = r.id
LEFT JOIN LATERAL (
    SELECT l.charge_id FROM {ledger_entries} l
    WHERE l.kind OPERATOR(pg_catalog.=) 'refund'::text AND l.charge_id OPERATOR(pg_catalog.=) i.charge_id AND (l.output_index OPERATOR(pg_catalog.=) i.output_index OR l.output_index IS NULL)
      AND NOT EXISTS (SELECT 1 FROM {makegood_refunds} ours WHERE ours.id OPERATOR(pg_catalog.=) l.refund_id)
    LIMIT 1) p ON true
LEFT JOIN LATERAL (
    SELECT m.charge_id FROM {makegood_deliveries} m
    WHERE m.charge_id OPERATOR(pg_catalog.=) i.charge_id AND m.output_index OPERATOR(pg_catalog.=) i.output_index LIMIT 1) d ON true
LEFT JOIN LATERAL (
    SELECT f.charge_id FROM {makegood_proofs} f
    WHERE f.charge_id OPERATOR(pg_catalog.=) i.charge_id AND f.output_index OPERATOR(pg_catalog.=) i.output_index LIMIT 1) v ON true
LEFT JOIN {makegood_orphans} o ON o.charge_id OPERATOR(pg_catalog.=) i.charge_id AND o.output_index OPERATOR(pg_catalog.=) i.output_index
$definition$);

SELECT makegood_define($definition$
CREATE OR REPLACE FUNCTION {home}.makegood_store_output(
    output_id text, charge_id text, output_index bigint, uri text, content_type text, size_bytes bigint, sha256 text,
    provider_job_id text DEFAULT NULL, provider_output_index bigint DEFAULT NULL
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path TO {path} AS $$
#variable_conflict use_column
DECLARE
    item record;
    refund record;
    job text;
    job_output bigint;
    at timestamptz;
BEGIN
    SELECT i.provider::text AS provider, i.provider_job_id::text AS provider_job_id,
           i.provider_output_index::bigint AS provider_output_index, c.account_id::text AS account_id,
           c.project_id::text AS project_id, c.node_id::text AS node_id,
           c.subscription_credits::bigint AS subscription_credits, c.wallet_credits::bigint AS wallet_credits
    INTO item
    FROM {makegood_items} i
    JOIN {charges} c ON c.id OPERATOR(pg_catalog.=) i.charge_id
    WHERE i.charge_id OPERATOR(pg_catalog.=) makegood_store_output.charge_id
      AND i.output_index OPERATOR(pg_catalog.=) makegood_store_output.output_index;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'makegood_store_output: there is no item %/%', makegood_store_output.charge_id, makegood_store_output.output_index
            USING ERRCODE = 'no_data_found';
    END IF;
    job := coalesce(makegood_store_output.provider_job_id, item.provider_job_id);
    job_output := coalesce(makegood_store_output.provider_output_index, item.provider_output_index, 0::bigint);
    IF job IS NULL THEN
        RAISE EXCEPTION 'makegood_store_output: item %/% has no provider job on record: name it (provider_job_id)', makegood_store_output.charge_id, makegood_store_output.output_index
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF item.provider_job_id IS NOT NULL AND (job <> item.provider_job_id OR job_output <> item.provider_output_index) THEN
        RAISE EXCEPTION 'makegood_store_output: item %/% was bought as output % of job %, not as output % of job %',
            makegood_store_output.charge_id, makegood_store_output.output_index, item.provider_output_index, item.provider_job_id, job_output, job
            USING ERRCODE = 'invalid_parameter_value';
    END IF;

    -- Settle's lock of the charge. Every statement after this one sees what was committed before it
    -- was ours.
    INSERT INTO {makegood_charges} AS m (charge_id, account_id, subscription_drawn, wallet_drawn)
    VALUES (makegood_store_output.charge_id, item.account_id, greatest(item.subscription_credits, 0::bigint),
            greatest(item.wallet_credits, 0::bigint))
    ON CONFLICT (charge_id) DO UPDATE SET charge_id = excluded.charge_id;

    IF EXISTS (SELECT 1 FROM {makegood_deliveries} d
               WHERE d.charge_id OPERATOR(pg_catalog.=) makegood_store_output.charge_id
                 AND d.output_index OPERATOR(pg_catalog.=) makegood_store_output.output_index) THEN
        RETURN 'already_there';
    END IF;
    at := clock_timestamp();
    INSERT INTO {stored_outputs} (id, charge_id, output_index, provider, provider_job_id, provider_output_index, project_id, node_id,
                                  uri, content_type, size_bytes, sha256, stored_at)
    VALUES (makegood_store_output.output_id, makegood_store_output.charge_id, makegood_store_output.output_index, item.provider,
            job, job_output, item.project_id, item.node_id, makegood_store_output.uri, makegood_store_output.content_type,
            makegood_store_output.size_bytes, makegood_store_output.sha256, at);

    SELECT r.id, r.provider, r.model, o.id AS orphan_id
    INTO refund
    FROM {makegood_refunds} r
    JOIN {makegood_orphans} o ON o.charge_id = r.charge_id AND o.output_index = r.output_index
    WHERE r.charge_id = makegood_store_output.charge_id AND r.output_index = makegood_store_output.output_index;
    IF NOT FOUND THEN
        RETURN 'stored';
    END IF;
    INSERT INTO {makegood_orphan_events} (orphan_id, charge_id, output_index, at, kind, detail)
    VALUES (refund.orphan_id, makegood_store_output.charge_id, makegood_store_output.output_index, at, 'stored_late',
            'output ' || makegood_store_output.output_id || ' was stored after the refund');
    INSERT INTO {makegood_late_successes} (charge_id, output_index, refund_id, kind, provider, model, provider_job_id, noticed_at,
                                           noticed_by, stored_output_id)
    VALUES (makegood_store_output.charge_id, makegood_store_output.output_index, refund.id, 'stored_late', refund.provider,
            refund.model, job, at, 'makegood_store_output', makegood_store_output.output_id)
    ON CONFLICT (charge_id, output_index) DO NOTHING;
    IF FOUND THEN
        INSERT INTO {makegood_counters} AS c (metric, label_a, label_b, value)
        VALUES ('late_successes', refund.provider, 'stored_late', 1)
        ON CONFLICT (metric, label_a, label_b) DO UPDATE SET value = c.value + 1::bigint;
    END IF;
    RETURN 'stored_late';
END
$$
$definition$);

SELECT makegood_define($definition$
CREATE OR REPLACE FUNCTION {home}.makegood_add_refund_sums() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path TO pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO {makegood_refund_sums} AS s (provider, slot, began_at, refunds, credits, own_faults)
    SELECT n.provider, mod(floor(extract(epoch FROM n.refunded_at) / 60)::bigint, 2880), date_trunc('minute', n.refunded_at), count(*),
           least(sum(n.subscription_credits::numeric + n.wallet_credits), 9223372036854775807)::bigint,
           count(*) FILTER (WHERE r.reason = 'recovery_failed'
                            OR r.reason = 'unconfirmed' AND a.verdict IN ('unauthorized', 'unknown_provider', 'unreadable'))
    FROM new_refunds n
    JOIN {makegood_resolutions} r ON r.id = n.resolution_id
    LEFT JOIN {makegood_answers} a ON a.id = r.answer_id
    GROUP BY n.provider, 2, 3
    ORDER BY n.provider
    ON CONFLICT (provider, slot) DO UPDATE
    SET began_at = greatest(s.began_at, excluded.began_at),
        refunds = CASE WHEN s.began_at < excluded.began_at THEN 0 ELSE s.refunds END + excluded.refunds,
        credits = CASE WHEN s.began_at < excluded.began_at THEN excluded.credits
                       WHEN s.credits > 9223372036854775807 - excluded.credits THEN 9223372036854775807
                       ELSE s.credits + excluded.credits END,
        own_faults = CASE WHEN s.began_at < excluded.began_at THEN 0 ELSE s.own_faults END + excluded.own_faults;
    RETURN NULL;
END
$$
$definition$);

SELECT makegood_define($definition$
ALTER FUNCTION {home}.makegood_only_added_to() SET search_path TO pg_catalog, pg_temp
$definition$);

SELECT makegood_define($definition$
ALTER FUNCTION {home}.makegood_resolution_only_superseded() SET search_path TO pg_catalog, pg_temp
$definition$);
