-- The rows of a settle cost less: no foreign keys among makegood's append-only tables, hashes only
-- where there is text, and balances raised by one statement.
--
-- Foreign keys. Each was a query and a row lock per row, on a row of the same transaction. What
-- guarantees the reference instead:
--   events and resolutions take the ids of orphans, answers and passes from rows that the same
--     settle has locked or inserted, and triggers refuse to delete or change these rows;
--   makegood_write_refunds reads each refund's resolution and charge itself, and below it refuses
--     a batch in which one of them is missing.
-- `makegood check --books` finds a refund without its charge or resolution. Late questions, late
-- successes, recoveries, reversals and erasures keep their foreign keys: they are few.

ALTER TABLE makegood_orphan_events
    DROP CONSTRAINT IF EXISTS makegood_orphan_events_orphan_id_fkey,
    DROP CONSTRAINT IF EXISTS makegood_orphan_events_answer_id_fkey,
    DROP CONSTRAINT IF EXISTS makegood_orphan_events_pass_id_fkey;
ALTER TABLE makegood_resolutions
    DROP CONSTRAINT IF EXISTS makegood_resolutions_answer_id_fkey,
    DROP CONSTRAINT IF EXISTS makegood_resolutions_pass_id_fkey;
ALTER TABLE makegood_refunds
    DROP CONSTRAINT IF EXISTS makegood_refunds_resolution_id_fkey,
    DROP CONSTRAINT IF EXISTS makegood_refunds_charge_id_fkey;

-- Hashes. One function a table, which names its functions with their schema instead of setting the
-- search path for each row, and is not called for a row without text.
CREATE FUNCTION makegood_hash_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.content_sha256 := pg_catalog.encode(
        pg_catalog.sha256(pg_catalog.convert_to(NEW.detail, 'UTF8')), 'hex');
    RETURN NEW;
END
$$;
CREATE FUNCTION makegood_hash_answer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.content_sha256 := pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(
        pg_catalog.json_build_array(
            NEW.code, NEW.message, NEW.request, NEW.excerpt)::pg_catalog.text, 'UTF8')), 'hex');
    RETURN NEW;
END
$$;
-- It also fires for a row without text that names a hash, and clears it: the role of the passes
-- cannot write a hash of its own.
DROP TRIGGER hashed ON makegood_orphan_events;
CREATE TRIGGER hashed BEFORE INSERT ON makegood_orphan_events FOR EACH ROW
    WHEN (NEW.detail IS NOT NULL OR NEW.content_sha256 IS NOT NULL)
    EXECUTE FUNCTION makegood_hash_event();
DROP TRIGGER hashed ON makegood_answers;
CREATE TRIGGER hashed BEFORE INSERT ON makegood_answers FOR EACH ROW
    EXECUTE FUNCTION makegood_hash_answer();
DROP FUNCTION makegood_hash_content();

-- Raises balances by one statement for the whole list. Settle has locked these rows in the order of
-- their keys before, so that two postings cannot deadlock; where they cannot be locked (a view),
-- makegood's own rows of the accounts are. Each account and bucket stands at most once in the list.
SELECT makegood_define($definition$
CREATE OR REPLACE FUNCTION {home}.makegood_add_to_balances(list jsonb)
RETURNS TABLE (account_id text, bucket text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    -- By account and bucket: what is added.
    due jsonb;
BEGIN
    SELECT jsonb_object_agg(d.account_id, d.buckets) INTO due
    FROM (SELECT e.value ->> 'account_id' AS account_id,
                 jsonb_object_agg(e.value ->> 'bucket', e.value -> 'credits') AS buckets
          FROM jsonb_array_elements(list) AS e GROUP BY e.value ->> 'account_id') AS d;
    RETURN QUERY
        UPDATE {balances} AS b
        SET credits = b.credits
                      OPERATOR(pg_catalog.+) (due -> b.account_id::text ->> b.bucket::text)::bigint
        WHERE b.account_id OPERATOR(pg_catalog.=)
              ANY (ARRAY(SELECT k FROM jsonb_object_keys(due) AS k))
          AND due -> b.account_id::text ->> b.bucket::text IS NOT NULL
        RETURNING b.account_id::text, b.bucket::text;
END
$$
$definition$);

SELECT makegood_define($definition$
CREATE OR REPLACE FUNCTION {home}.makegood_write_refunds(list jsonb)
RETURNS TABLE (account_id text, bucket text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    -- The refunds as they were inserted.
    posted {makegood_refunds}[];
    -- By charge: what is given back to the subscription and to the wallet.
    due jsonb;
    raised bigint;
BEGIN
    WITH inserted AS (
        INSERT INTO {makegood_refunds} AS m
               (id, resolution_id, charge_id, output_index, account_id, provider, model,
                subscription_credits, wallet_credits, reason, refunded_at)
        SELECT 'makegood:' || d.charge_id || '/' || d.output_index::text, r.id, d.charge_id,
               d.output_index, c.account_id::text, c.provider::text, c.model::text, d.subscription,
               d.wallet, r.reason, r.resolved_at
        FROM jsonb_to_recordset(list)
             AS d(charge_id text, output_index bigint, subscription bigint, wallet bigint)
        CROSS JOIN LATERAL (SELECT r.id, r.reason, r.resolved_at FROM {makegood_resolutions} r
                            WHERE r.charge_id = d.charge_id AND r.output_index = d.output_index
                              AND r.superseded_at IS NULL AND r.kind = 'refund'
                            OFFSET 0) AS r
        CROSS JOIN LATERAL (SELECT c.account_id, c.provider, c.model FROM {charges} c
                            WHERE c.id OPERATOR(pg_catalog.=) d.charge_id OFFSET 0) AS c
        RETURNING m.*
    )
    SELECT array_agg(ROW(i.*)::{makegood_refunds}) INTO posted FROM inserted i;
    IF cardinality(posted) IS DISTINCT FROM jsonb_array_length(list) THEN
        RAISE EXCEPTION
            'makegood_write_refunds refuses % refunds: % have a charge and a current resolution',
            jsonb_array_length(list), coalesce(cardinality(posted), 0)
            USING ERRCODE = 'foreign_key_violation';
    END IF;

    SELECT jsonb_object_agg(d.charge_id, jsonb_build_array(d.subscription, d.wallet))
    INTO due
    FROM (SELECT r.charge_id, sum(r.subscription_credits) AS subscription,
                 sum(r.wallet_credits) AS wallet
          FROM unnest(posted) AS r GROUP BY r.charge_id) AS d;
    UPDATE {makegood_charges} m
    SET subscription_refunded = m.subscription_refunded + (due -> m.charge_id ->> 0)::bigint,
        wallet_refunded = m.wallet_refunded + (due -> m.charge_id ->> 1)::bigint
    WHERE m.charge_id = ANY (ARRAY(SELECT k FROM jsonb_object_keys(due) AS k));
    GET DIAGNOSTICS raised = ROW_COUNT;
    IF raised <> (SELECT count(*) FROM jsonb_object_keys(due)) THEN
        RAISE EXCEPTION
            'makegood_write_refunds refuses refunds of % charges: makegood_charges has % of them',
            (SELECT count(*) FROM jsonb_object_keys(due)), raised
            USING ERRCODE = 'foreign_key_violation';
    END IF;

    -- The entry's id is made of item and bucket, so that even a ledger with no other rule refuses a
    -- second one.
    INSERT INTO {ledger_entries}
           (id, account_id, bucket, credits, kind, charge_id, output_index, refund_id, posted_at)
    SELECT r.id || ':' || b.bucket, r.account_id, b.bucket, b.credits, 'refund', r.charge_id,
           r.output_index, r.id, r.refunded_at
    FROM unnest(posted) AS r
    CROSS JOIN LATERAL (VALUES ('subscription'::text, r.subscription_credits),
                               ('wallet'::text, r.wallet_credits)) AS b(bucket, credits)
    WHERE b.credits > 0;

    RETURN QUERY SELECT a.account_id, a.bucket FROM {home}.makegood_add_to_balances((
        SELECT jsonb_agg(jsonb_build_object('account_id', d.account_id, 'bucket', d.bucket,
                                            'credits', d.credits))
        FROM (
            SELECT r.account_id, b.bucket, sum(b.credits) AS credits
            FROM unnest(posted) AS r
            CROSS JOIN LATERAL (VALUES ('subscription'::text, r.subscription_credits),
                                       ('wallet'::text, r.wallet_credits)) AS b(bucket, credits)
            WHERE b.credits > 0
            GROUP BY r.account_id, b.bucket
        ) AS d)) AS a;
    -- Deferred triggers of the platform fire here, with the rights that immediate ones have. So the
    -- caller reads back what they have left.
    SET CONSTRAINTS ALL IMMEDIATE;
END
$$
$definition$);
