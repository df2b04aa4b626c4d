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

-- Runs a definition in which {name} stands for the relation `name` with its schema, as the search
-- path finds it now; {home} is the schema of makegood's tables, {path} the search path of now with
-- pg_catalog first. Nothing in it is looked up on the search path. Only the owner may call it.
CREATE FUNCTION makegood_define(definition text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    path text := pg_catalog.current_setting('search_path');
    name text;
    named text;
    home text;
    schemas text;
BEGIN
    SELECT pg_catalog.quote_ident(n.nspname) INTO STRICT home
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = pg_catalog.to_regclass('makegood_charges');
    SELECT 'pg_catalog, ' || pg_catalog.string_agg(pg_catalog.quote_ident(s.name), ', ' ORDER BY s.nth) || ', pg_temp'
    INTO STRICT schemas
    FROM pg_catalog.unnest(pg_catalog.current_schemas(false)) WITH ORDINALITY AS s(name, nth)
    WHERE s.name <> 'pg_catalog'::name;
    definition := pg_catalog.replace(pg_catalog.replace(definition, '{home}', home), '{path}', schemas);
    FOR name IN SELECT DISTINCT m.found[1] FROM pg_catalog.regexp_matches(definition, '\{([a-z_]+)\}', 'g') AS m(found) LOOP
        SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) INTO named
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = pg_catalog.to_regclass(name);
        IF NOT FOUND THEN
            RAISE EXCEPTION 'relation "%" does not exist', name USING ERRCODE = 'undefined_table';
        END IF;
        definition := pg_catalog.replace(definition, '{' || name || '}', named);
    END LOOP;
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    EXECUTE definition;
    PERFORM pg_catalog.set_config('search_path', path, true);
END
$$;
REVOKE ALL ON FUNCTION makegood_define(text) FROM PUBLIC;
COMMENT ON FUNCTION makegood_define(text) IS 'For migrations: makes what is read by other roles, or runs with its owner''s rights, without looking anything up on the search path.';

-- Adds to balances one after the other, in the order of the list. With the rights of whoever calls
-- it: the functions below, and passes of the older version.
SELECT makegood_define($definition$
CREATE OR REPLACE FUNCTION {home}.makegood_add_to_balances(list jsonb) RETURNS TABLE (account_id text, bucket text)
LANGUAGE plpgsql AS $$
DECLARE
    due record;
BEGIN
    FOR due IN
        SELECT d.value ->> 'account_id' AS account_id, d.value ->> 'bucket' AS bucket,
               (d.value ->> 'credits')::bigint AS credits
        FROM jsonb_array_elements(list) WITH ORDINALITY AS d(value, nth)
        ORDER BY d.nth
    LOOP
        RETURN QUERY
            UPDATE {balances} AS b SET credits = b.credits OPERATOR(pg_catalog.+) due.credits
            WHERE b.account_id OPERATOR(pg_catalog.=) due.account_id
              AND b.bucket OPERATOR(pg_catalog.=) due.bucket
            RETURNING b.account_id::text, b.bucket::text;
    END LOOP;
END
$$
$definition$);

SELECT makegood_define($definition$
CREATE FUNCTION {home}.makegood_post_refunds(list jsonb)
RETURNS TABLE (account_id text, bucket text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path TO {path} AS $$
#variable_conflict use_column
DECLARE
    wrong text;
BEGIN
    -- Postings of one charge run one after the other. Every statement after this one sees what was
    -- committed before the locks were won.
    PERFORM 1
    FROM {makegood_charges} m
    WHERE m.charge_id = ANY (ARRAY(SELECT e.value ->> 'charge_id' FROM jsonb_array_elements(list) AS e))
    ORDER BY m.charge_id
    FOR UPDATE;

    -- One item at a time: it exists, costs what is given back, is not delivered, and nothing was
    -- given back for it.
    SELECT d.charge_id || '/' || d.output_index::text || ': ' || CASE
               WHEN i.credits IS NULL THEN 'there is no such item'
               WHEN d.subscription IS NULL OR d.wallet IS NULL OR d.subscription < 0 OR d.wallet < 0
                    THEN 'a refund gives back nothing less than zero'
               WHEN i.credits <= 0 OR d.subscription + d.wallet <> i.credits
                    THEN 'it cost ' || i.credits::text || ' credits, not ' || (d.subscription + d.wallet)::text
               WHEN d.resolution_id IS NULL THEN 'no current resolution says that it is refunded'
               WHEN v.delivered THEN 'it is delivered'
               WHEN f.proved THEN 'makegood has brought its output home'
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
    CROSS JOIN LATERAL (SELECT count(*) > 0 AS proved FROM {makegood_proofs} f
                        WHERE f.charge_id = d.charge_id AND f.output_index = d.output_index
                        OFFSET 0) AS f
    CROSS JOIN LATERAL (SELECT coalesce(sum(l.credits::numeric), 0) AS credits FROM {ledger_entries} l
                        WHERE l.charge_id OPERATOR(pg_catalog.=) d.charge_id
                          AND l.output_index OPERATOR(pg_catalog.=) d.output_index
                          AND l.kind::text = 'refund'
                          AND (SELECT count(*) FROM {makegood_refunds} r WHERE r.id = l.refund_id::text) = 0
                        OFFSET 0) AS p
    WHERE i.credits IS NULL OR d.resolution_id IS NULL OR v.delivered OR f.proved OR p.credits >= i.credits
       OR i.credits <= 0 OR (d.subscription >= 0 AND d.wallet >= 0 AND d.subscription + d.wallet = i.credits) IS NOT TRUE
    LIMIT 1;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'makegood_post_refunds refuses %', wrong USING ERRCODE = 'restrict_violation';
    END IF;

    -- One charge at a time: it goes back to the account that paid, to no bucket more than the
    -- charge drew from it, and to the wallet only when all of the subscription's part is back
    -- (P03).
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

    -- One after the other in the order of the keys, which is the order in which settle locks them,
    -- so that two postings cannot deadlock, over tables and over views alike.
    RETURN QUERY SELECT a.account_id, a.bucket FROM {home}.makegood_add_to_balances((
        SELECT jsonb_agg(jsonb_build_object('account_id', d.account_id, 'bucket', d.bucket, 'credits', d.credits)
                         ORDER BY d.account_id COLLATE "C", d.bucket COLLATE "C")
        FROM (
            SELECT r.account_id, b.bucket, sum(b.credits) AS credits
            FROM jsonb_to_recordset(list) AS d(charge_id text, output_index bigint)
            CROSS JOIN LATERAL (SELECT r.account_id, r.subscription_credits, r.wallet_credits FROM {makegood_refunds} r
                                WHERE r.charge_id = d.charge_id AND r.output_index = d.output_index OFFSET 0) AS r
            CROSS JOIN LATERAL (VALUES ('subscription'::text, r.subscription_credits), ('wallet'::text, r.wallet_credits))
                       AS b(bucket, credits)
            WHERE b.credits > 0
            GROUP BY r.account_id, b.bucket
        ) AS d)) AS a;
    -- Deferred triggers of the platform fire here, with the rights that immediate ones have. So the
    -- caller reads back what they have left.
    SET CONSTRAINTS ALL IMMEDIATE;
END
$$
$definition$);

SELECT makegood_define($definition$
COMMENT ON FUNCTION {home}.makegood_post_refunds(jsonb) IS 'Posts refunds: refund, ledger entries and balances together, as much as the platform''s own rows allow (P01, P03). Takes a list of {charge_id, output_index, subscription, wallet}; returns a row for each balance row that was hit.'
$definition$);

SELECT makegood_define($definition$
REVOKE ALL ON FUNCTION {home}.makegood_post_refunds(jsonb) FROM PUBLIC
$definition$);

SELECT makegood_define($definition$
CREATE FUNCTION {home}.makegood_post_reversals(list jsonb)
RETURNS TABLE (account_id text, bucket text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path TO {path} AS $$
#variable_conflict use_column
BEGIN
    -- Whose refund, and how much of it, is what makegood_refunds says. A refund that is not there,
    -- or is reversed already, is refused by a key.
    INSERT INTO {makegood_refund_reversals} (id, refund_id, charge_id, output_index, account_id, subscription_credits,
                                             wallet_credits, by_whom, reason, reversed_at)
    SELECT d.refund_id || ':reversed', d.refund_id, r.charge_id, r.output_index, r.account_id, r.subscription_credits,
           r.wallet_credits, d.by_whom, d.reason, d.reversed_at
    FROM jsonb_to_recordset(list) AS d(refund_id text, by_whom text, reason text, reversed_at timestamptz)
    LEFT JOIN LATERAL (SELECT r.charge_id, r.output_index, r.account_id, r.subscription_credits, r.wallet_credits
                       FROM {makegood_refunds} r WHERE r.id = d.refund_id OFFSET 0) AS r ON true;

    INSERT INTO {ledger_entries} (id, account_id, bucket, credits, kind, charge_id, output_index, refund_id, posted_at)
    SELECT b.id || ':' || t.bucket, b.account_id, t.bucket, -t.credits, 'refund', b.charge_id, b.output_index, b.refund_id,
           b.reversed_at
    FROM jsonb_to_recordset(list) AS d(refund_id text)
    CROSS JOIN LATERAL (SELECT b.id, b.account_id, b.charge_id, b.output_index, b.refund_id, b.subscription_credits,
                               b.wallet_credits, b.reversed_at
                        FROM {makegood_refund_reversals} b WHERE b.refund_id = d.refund_id OFFSET 0) AS b
    CROSS JOIN LATERAL (VALUES ('subscription'::text, b.subscription_credits), ('wallet'::text, b.wallet_credits))
               AS t(bucket, credits)
    WHERE t.credits > 0;

    -- In the order in which settle locks balances, so that the two cannot deadlock.
    RETURN QUERY SELECT a.account_id, a.bucket FROM {home}.makegood_add_to_balances((
        SELECT jsonb_agg(jsonb_build_object('account_id', d.account_id, 'bucket', d.bucket, 'credits', d.credits)
                         ORDER BY d.account_id COLLATE "C", d.bucket COLLATE "C")
        FROM (
            SELECT b.account_id, t.bucket, -sum(t.credits) AS credits
            FROM jsonb_to_recordset(list) AS d(refund_id text)
            CROSS JOIN LATERAL (SELECT b.account_id, b.subscription_credits, b.wallet_credits
                                FROM {makegood_refund_reversals} b WHERE b.refund_id = d.refund_id OFFSET 0) AS b
            CROSS JOIN LATERAL (VALUES ('subscription'::text, b.subscription_credits), ('wallet'::text, b.wallet_credits))
                       AS t(bucket, credits)
            WHERE t.credits > 0
            GROUP BY b.account_id, t.bucket
        ) AS d)) AS a;
    SET CONSTRAINTS ALL IMMEDIATE;
END
$$
$definition$);

SELECT makegood_define($definition$
COMMENT ON FUNCTION {home}.makegood_post_reversals(jsonb) IS 'Takes refunds back that a person names: reversal, ledger entries and balances together, by exactly what the refund gave. Takes a list of {refund_id, by_whom, reason, reversed_at}; returns a row for each balance row that was hit. For people, not for passes.'
$definition$);

SELECT makegood_define($definition$
REVOKE ALL ON FUNCTION {home}.makegood_post_reversals(jsonb) FROM PUBLIC
$definition$);

SELECT makegood_define($definition$
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
-- A view with GROUP BY; one whose owner may write through its trigger only; what is no table at
-- all.
EXCEPTION WHEN feature_not_supported OR insufficient_privilege OR wrong_object_type THEN
    NULL;
END
$$
$definition$);

SELECT makegood_define($definition$
REVOKE ALL ON FUNCTION {home}.makegood_lock_balances(jsonb) FROM PUBLIC
$definition$);

SELECT makegood_define($definition$
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
$definition$);

SELECT makegood_define($definition$
REVOKE ALL ON FUNCTION {home}.makegood_try_lock_balances(jsonb) FROM PUBLIC
$definition$);

SELECT makegood_define($definition$
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
$definition$);

SELECT makegood_define($definition$
COMMENT ON FUNCTION {home}.makegood_try_balance(jsonb) IS 'For `makegood check`: what two writers at once do to a balance. Adds 1 twice and rolls it back before it returns.'
$definition$);

SELECT makegood_define($definition$
REVOKE ALL ON FUNCTION {home}.makegood_try_balance(jsonb) FROM PUBLIC
$definition$);
