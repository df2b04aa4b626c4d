-- Refunds are posted by the database, so that the role of the passes cannot mint credits.
--
-- makegood_post_refunds writes refund, ledger entries and balances together, with its owner's
-- rights. It reads account, draw, price and deliveries from the platform's relations itself. So the
-- role needs neither UPDATE on balances nor INSERT on ledger_entries and makegood_refunds. All that
-- it can still give back is the price of an item that was charged and is not delivered, once, to
-- the account that paid.
--
-- The functions here run with their owner's rights. So that no other role can put its own code in:
--   every relation is named with its schema, and the search path is fixed;
--   operators on the platform's columns are named with theirs, because an operator of another role
--     that fits a column's type better, such as =(varchar, text), would be chosen otherwise;
--   all other operands are cast to built-in types, for which pg_catalog comes first.
-- The search path keeps the schemas that it had at migration, because triggers of the platform that
-- run inside may need it. `makegood check` warns where others may create in these schemas.
--
-- Upgrade order: this migration, then the new binaries, then the REVOKE of docs/adopting.md. Until
-- then passes of the older version go on writing with their own rights.

DO $migration$
DECLARE
    path text := pg_catalog.current_setting('search_path');
    schemas text;
    home text;
    job_type text;
    relation text;
    named text;
    definition text;
    relations text[] := ARRAY['charges', 'charge_items', 'stored_outputs', 'balances', 'ledger_entries',
                              'makegood_charges', 'makegood_refunds', 'makegood_resolutions', 'makegood_items',
                              'makegood_deliveries', 'makegood_orphans', 'makegood_orphan_events',
                              'makegood_late_successes', 'makegood_counters'];
    names text[] := '{}';
    definitions text[] := ARRAY[
$definition$
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
$definition$,
$definition$
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
$definition$,

$definition$
CREATE FUNCTION {home}.makegood_post_refunds(list jsonb)
RETURNS TABLE (account_id text, bucket text, balance_rows bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path TO {path} AS $$
#variable_conflict use_column
DECLARE
    wrong text;
    due record;
    hit bigint;
BEGIN
    -- Postings of one charge run one after the other. Every statement after this one sees what was
    -- committed before the locks were won.
    PERFORM 1
    FROM {makegood_charges} m
    WHERE m.charge_id = ANY (ARRAY(SELECT e.value ->> 'charge_id' FROM jsonb_array_elements(list) AS e))
    ORDER BY m.charge_id
    FOR UPDATE;

    -- One item at a time: it exists, costs what is given back, is not delivered, and nothing was given
    -- back for it.
    SELECT d.charge_id || '/' || d.output_index::text || ': ' || CASE
               WHEN i.credits IS NULL THEN 'there is no such item'
               WHEN d.subscription IS NULL OR d.wallet IS NULL OR d.subscription < 0 OR d.wallet < 0
                    THEN 'a refund gives back nothing less than zero'
               WHEN i.credits <= 0 OR d.subscription + d.wallet <> i.credits
                    THEN 'it cost ' || i.credits::text || ' credits, not ' || (d.subscription + d.wallet)::text
               WHEN d.resolution_id IS NULL THEN 'no current resolution says that it is refunded'
               WHEN v.delivered THEN 'it is delivered'
               WHEN p.credits >= i.credits THEN 'the platform has refunded it'
           END
    INTO wrong
    FROM (SELECT d.charge_id, d.output_index, d.subscription::numeric AS subscription, d.wallet::numeric AS wallet,
                 (SELECT r.id FROM {makegood_resolutions} r
                  WHERE r.charge_id = d.charge_id AND r.output_index = d.output_index
                    AND r.superseded_at IS NULL AND r.kind = 'refund') AS resolution_id
          FROM jsonb_to_recordset(list)
               AS d(charge_id text, output_index bigint, subscription bigint, wallet bigint)) AS d
    LEFT JOIN LATERAL (SELECT i.credits::numeric AS credits FROM {charge_items} i
                       WHERE i.charge_id OPERATOR(pg_catalog.=) d.charge_id
                         AND i.output_index OPERATOR(pg_catalog.=) d.output_index
                       OFFSET 0) AS i ON true
    CROSS JOIN LATERAL (SELECT count(*) > 0 AS delivered FROM {makegood_deliveries} v
                        WHERE v.charge_id OPERATOR(pg_catalog.=) d.charge_id
                          AND v.output_index OPERATOR(pg_catalog.=) d.output_index
                        OFFSET 0) AS v
    CROSS JOIN LATERAL (SELECT coalesce(sum(l.credits::numeric), 0) AS credits FROM {ledger_entries} l
                        WHERE l.charge_id OPERATOR(pg_catalog.=) d.charge_id
                          AND l.output_index OPERATOR(pg_catalog.=) d.output_index
                          AND l.kind::text = 'refund'
                          AND (SELECT count(*) FROM {makegood_refunds} r WHERE r.id = l.refund_id::text) = 0
                        OFFSET 0) AS p
    WHERE i.credits IS NULL OR d.resolution_id IS NULL OR v.delivered OR p.credits >= i.credits
       OR i.credits <= 0 OR (d.subscription >= 0 AND d.wallet >= 0 AND d.subscription + d.wallet = i.credits) IS NOT TRUE
    LIMIT 1;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'makegood_post_refunds refuses %', wrong USING ERRCODE = 'restrict_violation';
    END IF;

    -- One charge at a time: it goes back to the account that paid, to no bucket more than the charge
    -- drew from it, and to the wallet only when all of the subscription's part is back (P03).
    SELECT d.charge_id || ': ' || CASE
               WHEN c.account_id IS NULL THEN 'there is no such charge'
               WHEN ours.elsewhere THEN 'an earlier refund of it went to another account'
               ELSE 'it drew ' || c.subscription::text || ' from the subscription and ' || c.wallet::text
                    || ' from the wallet; ' || (ours.subscription + theirs.subscription)::text || ' and '
                    || (ours.wallet + theirs.wallet)::text || ' are back, and '
                    || d.subscription::text || ' and ' || d.wallet::text || ' are too much, or not in this order'
           END
    INTO wrong
    FROM (SELECT d.charge_id, sum(d.subscription::numeric) AS subscription, sum(d.wallet::numeric) AS wallet
          FROM jsonb_to_recordset(list) AS d(charge_id text, subscription bigint, wallet bigint)
          GROUP BY d.charge_id) AS d
    LEFT JOIN LATERAL (SELECT c.account_id::text AS account_id, c.subscription_credits::numeric AS subscription,
                              c.wallet_credits::numeric AS wallet
                       FROM {charges} c WHERE c.id OPERATOR(pg_catalog.=) d.charge_id OFFSET 0) AS c ON true
    CROSS JOIN LATERAL (SELECT coalesce(sum(r.subscription_credits::numeric), 0) AS subscription,
                               coalesce(sum(r.wallet_credits::numeric), 0) AS wallet,
                               count(*) FILTER (WHERE r.account_id <> c.account_id) > 0 AS elsewhere
                        FROM {makegood_refunds} r WHERE r.charge_id = d.charge_id OFFSET 0) AS ours
    CROSS JOIN LATERAL (SELECT greatest(coalesce(sum(l.credits::numeric) FILTER (WHERE l.bucket::text = 'subscription'), 0),
                                        0::numeric) AS subscription,
                               greatest(coalesce(sum(l.credits::numeric) FILTER (WHERE l.bucket::text = 'wallet'), 0),
                                        0::numeric) AS wallet
                        FROM {ledger_entries} l
                        WHERE l.charge_id OPERATOR(pg_catalog.=) d.charge_id AND l.kind::text = 'refund'
                          AND (SELECT count(*) FROM {makegood_refunds} r WHERE r.id = l.refund_id::text) = 0
                        OFFSET 0) AS theirs
    WHERE c.account_id IS NULL OR ours.elsewhere
       OR d.subscription > 0::numeric AND ours.subscription + theirs.subscription + d.subscription > c.subscription
       OR d.wallet > 0::numeric AND ours.wallet + theirs.wallet + d.wallet > c.wallet
       OR d.wallet > 0::numeric AND ours.subscription + theirs.subscription + d.subscription < c.subscription
    LIMIT 1;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'makegood_post_refunds refuses charge %', wrong USING ERRCODE = 'restrict_violation';
    END IF;

    INSERT INTO {makegood_refunds} (id, resolution_id, charge_id, output_index, account_id, provider, model,
                                    subscription_credits, wallet_credits, reason, refunded_at)
    SELECT 'makegood:' || d.charge_id || '/' || d.output_index::text, r.id, d.charge_id, d.output_index,
           c.account_id::text, c.provider::text, c.model::text, d.subscription, d.wallet, r.reason, r.resolved_at
    FROM jsonb_to_recordset(list) AS d(charge_id text, output_index bigint, subscription bigint, wallet bigint)
    CROSS JOIN LATERAL (SELECT r.id, r.reason, r.resolved_at FROM {makegood_resolutions} r
                        WHERE r.charge_id = d.charge_id AND r.output_index = d.output_index
                          AND r.superseded_at IS NULL AND r.kind = 'refund'
                        OFFSET 0) AS r
    CROSS JOIN LATERAL (SELECT c.account_id, c.provider, c.model FROM {charges} c
                        WHERE c.id OPERATOR(pg_catalog.=) d.charge_id OFFSET 0) AS c;

    UPDATE {makegood_charges} m
    SET subscription_refunded = m.subscription_refunded + d.subscription::bigint,
        wallet_refunded = m.wallet_refunded + d.wallet::bigint
    FROM (SELECT d.charge_id, sum(d.subscription) AS subscription, sum(d.wallet) AS wallet
          FROM jsonb_to_recordset(list) AS d(charge_id text, subscription bigint, wallet bigint)
          GROUP BY d.charge_id) AS d
    WHERE m.charge_id = d.charge_id
      AND m.charge_id = ANY (ARRAY(SELECT e.value ->> 'charge_id' FROM jsonb_array_elements(list) AS e));

    -- The entry's id is made of item and bucket, so that even a ledger with no other rule refuses a
    -- second one.
    INSERT INTO {ledger_entries} (id, account_id, bucket, credits, kind, charge_id, output_index, refund_id, posted_at)
    SELECT r.id || ':' || b.bucket, r.account_id, b.bucket, b.credits, 'refund', r.charge_id, r.output_index, r.id,
           r.refunded_at
    FROM jsonb_to_recordset(list) AS d(charge_id text, output_index bigint)
    CROSS JOIN LATERAL (SELECT r.id, r.account_id, r.charge_id, r.output_index, r.subscription_credits,
                               r.wallet_credits, r.refunded_at
                        FROM {makegood_refunds} r
                        WHERE r.charge_id = d.charge_id AND r.output_index = d.output_index OFFSET 0) AS r
    CROSS JOIN LATERAL (VALUES ('subscription'::text, r.subscription_credits), ('wallet'::text, r.wallet_credits))
               AS b(bucket, credits)
    WHERE b.credits > 0;

    -- One after the other in the order of the keys, which is the order in which settle locks them, so
    -- that two postings cannot deadlock, over tables and over views alike.
    FOR due IN
        SELECT r.account_id, b.bucket, sum(b.credits)::bigint AS credits
        FROM jsonb_to_recordset(list) AS d(charge_id text, output_index bigint)
        CROSS JOIN LATERAL (SELECT r.account_id, r.subscription_credits, r.wallet_credits FROM {makegood_refunds} r
                            WHERE r.charge_id = d.charge_id AND r.output_index = d.output_index OFFSET 0) AS r
        CROSS JOIN LATERAL (VALUES ('subscription'::text, r.subscription_credits), ('wallet'::text, r.wallet_credits))
                   AS b(bucket, credits)
        WHERE b.credits > 0
        GROUP BY r.account_id, b.bucket
        ORDER BY r.account_id COLLATE "C", b.bucket COLLATE "C"
    LOOP
        UPDATE {balances} AS b SET credits = b.credits OPERATOR(pg_catalog.+) due.credits
        WHERE b.account_id OPERATOR(pg_catalog.=) due.account_id AND b.bucket OPERATOR(pg_catalog.=) due.bucket;
        GET DIAGNOSTICS hit = ROW_COUNT;
        account_id := due.account_id;
        bucket := due.bucket;
        balance_rows := hit;
        RETURN NEXT;
    END LOOP;
    -- Deferred triggers of the platform fire here, with the rights that immediate ones have. So the
    -- caller reads back what they have left.
    SET CONSTRAINTS ALL IMMEDIATE;
END
$$
$definition$,
$definition$
COMMENT ON FUNCTION {home}.makegood_post_refunds(jsonb) IS 'Posts refunds: refund, ledger entries and balances together, as much as the platform''s own rows allow (P01, P03). Takes a list of {charge_id, output_index, subscription, wallet}; returns how many balance rows were hit for each account and bucket.'
$definition$,
$definition$
REVOKE ALL ON FUNCTION {home}.makegood_post_refunds(jsonb) FROM PUBLIC
$definition$,

$definition$
CREATE OR REPLACE FUNCTION {home}.makegood_lock_balances(list jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path TO {path} AS $$
DECLARE
    due record;
BEGIN
    FOR due IN
        SELECT d.value ->> 'account_id' AS account_id, d.value ->> 'bucket' AS bucket
        FROM jsonb_array_elements(list) WITH ORDINALITY AS d(value, nth)
        ORDER BY d.nth
    LOOP
        PERFORM 1 FROM {balances} AS b
        WHERE b.account_id OPERATOR(pg_catalog.=) due.account_id AND b.bucket OPERATOR(pg_catalog.=) due.bucket
        FOR UPDATE OF b;
    END LOOP;
-- A view with GROUP BY; one whose owner may write through its trigger only; what is no table at all.
EXCEPTION WHEN feature_not_supported OR insufficient_privilege OR wrong_object_type THEN
    NULL;
END
$$
$definition$,
$definition$
REVOKE ALL ON FUNCTION {home}.makegood_lock_balances(jsonb) FROM PUBLIC
$definition$,

$definition$
CREATE OR REPLACE FUNCTION {home}.makegood_try_lock_balances(list jsonb) RETURNS TABLE (account_id text, bucket text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path TO {path} AS $$
#variable_conflict use_column
BEGIN
    -- Key by key in the order of the list, which is that of the keys, and by the index however many
    -- balances there are.
    RETURN QUERY
    SELECT d.account_id, d.bucket
    FROM (SELECT e.value ->> 'account_id' AS account_id, e.value ->> 'bucket' AS bucket
          FROM jsonb_array_elements(list) WITH ORDINALITY AS e(value, nth) ORDER BY e.nth) AS d
    WHERE (SELECT count(*) FROM {balances} b
           WHERE b.account_id OPERATOR(pg_catalog.=) d.account_id AND b.bucket OPERATOR(pg_catalog.=) d.bucket)
          > (SELECT count(*) FROM (SELECT 1 FROM {balances} b
                                   WHERE b.account_id OPERATOR(pg_catalog.=) d.account_id
                                     AND b.bucket OPERATOR(pg_catalog.=) d.bucket
                                   FOR UPDATE OF b SKIP LOCKED) AS held);
EXCEPTION WHEN feature_not_supported OR insufficient_privilege OR wrong_object_type THEN
    NULL;
END
$$
$definition$,
$definition$
REVOKE ALL ON FUNCTION {home}.makegood_try_lock_balances(jsonb) FROM PUBLIC
$definition$,

$definition$
CREATE FUNCTION {home}.makegood_try_balance(key jsonb)
RETURNS TABLE (hit bigint, moved numeric)
LANGUAGE plpgsql SECURITY DEFINER SET search_path TO {path} AS $$
DECLARE
    account text := key ->> 'account_id';
    of_bucket text := key ->> 'bucket';
    credits_before numeric;
BEGIN
    hit := 0;
    SELECT b.credits::numeric INTO credits_before FROM {balances} b
    WHERE b.account_id OPERATOR(pg_catalog.=) account AND b.bucket OPERATOR(pg_catalog.=) of_bucket;
    -- One statement that adds 1 twice, each time to what was there before it.
    UPDATE {balances} AS b SET credits = b.credits OPERATOR(pg_catalog.+) 1::bigint
    FROM (VALUES (1), (2)) AS twice
    WHERE b.account_id OPERATOR(pg_catalog.=) account AND b.bucket OPERATOR(pg_catalog.=) of_bucket;
    GET DIAGNOSTICS hit = ROW_COUNT;
    SELECT b.credits::numeric - credits_before INTO moved FROM {balances} b
    WHERE b.account_id OPERATOR(pg_catalog.=) account AND b.bucket OPERATOR(pg_catalog.=) of_bucket;
    -- Rolls back to BEGIN; what was found is kept in the variables.
    RAISE EXCEPTION 'rolled back' USING ERRCODE = 'MG000';
EXCEPTION WHEN SQLSTATE 'MG000' THEN
    RETURN NEXT;
END
$$
$definition$,
$definition$
COMMENT ON FUNCTION {home}.makegood_try_balance(jsonb) IS 'For `makegood check`: what two writers at once do to a balance. Adds 1 twice and rolls it back before it returns.'
$definition$,
$definition$
REVOKE ALL ON FUNCTION {home}.makegood_try_balance(jsonb) FROM PUBLIC
$definition$,

$definition$
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
$definition$,
$definition$
ALTER FUNCTION {home}.makegood_only_added_to() SET search_path TO pg_catalog, pg_temp
$definition$,
$definition$
ALTER FUNCTION {home}.makegood_resolution_only_superseded() SET search_path TO pg_catalog, pg_temp
$definition$
    ];
BEGIN
    SELECT n.nspname INTO STRICT home
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = pg_catalog.to_regclass('makegood_charges');
    SELECT 'pg_catalog, ' || string_agg(quote_ident(s.name), ', ' ORDER BY s.nth) || ', pg_temp' INTO STRICT schemas
    FROM unnest(current_schemas(false)) WITH ORDINALITY AS s(name, nth)
    WHERE s.name <> 'pg_catalog';
    FOREACH relation IN ARRAY relations LOOP
        SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) INTO named
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = pg_catalog.to_regclass(relation);
        IF NOT FOUND THEN
            RAISE EXCEPTION 'relation "%" does not exist', relation USING ERRCODE = 'undefined_table';
        END IF;
        names := names || named;
    END LOOP;
    -- A view that is replaced keeps the types of its columns.
    SELECT pg_catalog.format_type(a.atttypid, a.atttypmod) INTO STRICT job_type
    FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = pg_catalog.to_regclass('makegood_items') AND a.attname = 'provider_job_id';
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    FOREACH definition IN ARRAY definitions LOOP
        definition := pg_catalog.replace(definition, '{home}', pg_catalog.quote_ident(home));
        definition := pg_catalog.replace(definition, '{path}', schemas);
        definition := pg_catalog.replace(definition, '{job_type}', job_type);
        FOR nth IN 1 .. pg_catalog.cardinality(relations) LOOP
            definition := pg_catalog.replace(definition, '{' || relations[nth] || '}', names[nth]);
        END LOOP;
        EXECUTE definition;
    END LOOP;
    PERFORM pg_catalog.set_config('search_path', path, true);
END
$migration$;
