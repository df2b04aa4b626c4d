-- A refund can be tried: posted as a real one, read back, and rolled back before anybody sees it.
--
-- makegood_write_refunds is the part of makegood_post_refunds that writes. makegood_try_refund runs
-- the same part on one item of a real charge, and always ends its writes with an exception: so no
-- caller can commit them, whatever rights it has. makegood_sees says how many rows the owner sees,
-- so that a role learns what row security hides from it.
--
-- makegood_checks keeps when it was last found out whether refunds can be posted, by which version,
-- and what came of it: passes that are started every minute check once an hour.

CREATE TABLE makegood_checks (
    name       text PRIMARY KEY,
    checked_at timestamptz,
    version    text,
    result     text NOT NULL DEFAULT 'untried' CHECK (result IN ('ok', 'cannot_post', 'untried')),
    detail     text
);
COMMENT ON TABLE makegood_checks IS 'Whether refunds can be posted (name posting), as a pass last found out. While the result is cannot_post, passes hold refunds.';
INSERT INTO makegood_checks (name) VALUES ('posting');

-- With the rights of whoever calls it: the two functions below, which run with their owner's.
SELECT makegood_define($definition$
CREATE FUNCTION {home}.makegood_write_refunds(list jsonb)
RETURNS TABLE (account_id text, bucket text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
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
COMMENT ON FUNCTION {home}.makegood_write_refunds(jsonb) IS 'The part of makegood_post_refunds that writes. Proves nothing: only makegood_post_refunds and makegood_try_refund call it.'
$definition$);

SELECT makegood_define($definition$
REVOKE ALL ON FUNCTION {home}.makegood_write_refunds(jsonb) FROM PUBLIC
$definition$);

-- As in migration 0012, up to the writes.
SELECT makegood_define($definition$
CREATE OR REPLACE FUNCTION {home}.makegood_post_refunds(list jsonb)
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

    RETURN QUERY SELECT w.account_id, w.bucket FROM {home}.makegood_write_refunds(list) AS w;
END
$$
$definition$);

SELECT makegood_define($definition$
CREATE FUNCTION {home}.makegood_try_refund(refund jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path TO {path} AS $$
DECLARE
    charge text := refund ->> 'charge_id';
    item bigint := (refund ->> 'output_index')::bigint;
    account text;
    balances_before jsonb;
    hit jsonb;
    seen jsonb;
BEGIN
    SELECT c.account_id::text INTO account FROM {charges} c WHERE c.id OPERATOR(pg_catalog.=) charge;
    INSERT INTO {makegood_charges} (charge_id, account_id, subscription_drawn, wallet_drawn)
    SELECT charge, c.account_id::text, greatest(c.subscription_credits::bigint, 0::bigint),
           greatest(c.wallet_credits::bigint, 0::bigint)
    FROM {charges} c WHERE c.id OPERATOR(pg_catalog.=) charge
    ON CONFLICT (charge_id) DO NOTHING;
    UPDATE {makegood_resolutions} SET superseded_at = now()
    WHERE charge_id = charge AND output_index = item AND superseded_at IS NULL;
    INSERT INTO {makegood_resolutions} (charge_id, output_index, kind, reason, rule, resolved_at, decided_by)
    VALUES (charge, item, 'refund', 'trial', 0, now(), 'makegood');

    SELECT jsonb_agg(jsonb_build_object('account_id', b.account_id, 'bucket', b.bucket, 'credits', b.credits))
    INTO balances_before
    FROM {balances} b WHERE b.account_id OPERATOR(pg_catalog.=) account;
    SELECT jsonb_agg(jsonb_build_object('account_id', w.account_id, 'bucket', w.bucket)) INTO hit
    FROM {home}.makegood_write_refunds(jsonb_build_array(refund)) AS w;
    seen := jsonb_build_object(
        'before', balances_before,
        'hit', hit,
        'after', (SELECT jsonb_agg(jsonb_build_object('account_id', b.account_id, 'bucket', b.bucket, 'credits', b.credits))
                  FROM {balances} b WHERE b.account_id OPERATOR(pg_catalog.=) account),
        'entries', (SELECT jsonb_agg(jsonb_build_object('id', l.id, 'account_id', l.account_id, 'bucket', l.bucket,
                                                        'credits', l.credits, 'charge_id', l.charge_id,
                                                        'output_index', l.output_index))
                    FROM {ledger_entries} l
                    WHERE l.charge_id OPERATOR(pg_catalog.=) charge AND l.kind::text = 'refund'));
    -- Rolls back to BEGIN; what was found is kept in the variable.
    RAISE EXCEPTION 'rolled back' USING ERRCODE = 'MG000';
EXCEPTION WHEN SQLSTATE 'MG000' THEN
    RETURN seen;
END
$$
$definition$);

SELECT makegood_define($definition$
COMMENT ON FUNCTION {home}.makegood_try_refund(jsonb) IS 'For `makegood check` and the start of a pass: posts a refund of one item as makegood_post_refunds does, reads it back, and rolls it back before it returns. Takes {charge_id, output_index, subscription, wallet}.'
$definition$);

SELECT makegood_define($definition$
REVOKE ALL ON FUNCTION {home}.makegood_try_refund(jsonb) FROM PUBLIC
$definition$);

SELECT makegood_define($definition$
CREATE FUNCTION {home}.makegood_sees() RETURNS TABLE (relation text, seen bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path TO {path} AS $$
    SELECT 'charges', count(*) FROM (SELECT FROM {charges} LIMIT 1000) AS r
    UNION ALL SELECT 'charge_items', count(*) FROM (SELECT FROM {charge_items} LIMIT 1000) AS r
    UNION ALL SELECT 'stored_outputs', count(*) FROM (SELECT FROM {stored_outputs} LIMIT 1000) AS r
    UNION ALL SELECT 'balances', count(*) FROM (SELECT FROM {balances} LIMIT 1000) AS r
    UNION ALL SELECT 'ledger_entries', count(*) FROM (SELECT FROM {ledger_entries} LIMIT 1000) AS r
$$
$definition$);

SELECT makegood_define($definition$
COMMENT ON FUNCTION {home}.makegood_sees() IS 'For `makegood check` and the start of a pass: how many rows of each relation the owner sees, up to 1000.'
$definition$);

SELECT makegood_define($definition$
REVOKE ALL ON FUNCTION {home}.makegood_sees() FROM PUBLIC
$definition$);
