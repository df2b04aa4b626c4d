-- A posting finds what it adds to a charge by the charge's id. Joined with the list, each charge of
-- a batch was compared with each row of the list: twice as large a batch took four times as long.

SELECT makegood_define($definition$
CREATE OR REPLACE FUNCTION {home}.makegood_write_refunds(list jsonb)
RETURNS TABLE (account_id text, bucket text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    -- By charge: what is given back to the subscription and to the wallet.
    due jsonb;
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

    SELECT jsonb_object_agg(d.charge_id, jsonb_build_array(d.subscription, d.wallet))
    INTO due
    FROM (SELECT d.charge_id, sum(d.subscription) AS subscription, sum(d.wallet) AS wallet
          FROM jsonb_to_recordset(list) AS d(charge_id text, subscription bigint, wallet bigint)
          GROUP BY d.charge_id) AS d;
    UPDATE {makegood_charges} m
    SET subscription_refunded = m.subscription_refunded + (due -> m.charge_id ->> 0)::bigint,
        wallet_refunded = m.wallet_refunded + (due -> m.charge_id ->> 1)::bigint
    WHERE m.charge_id = ANY (ARRAY(SELECT k FROM jsonb_object_keys(due) AS k));

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
