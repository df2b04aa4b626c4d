-- What the brake counts, as sums per provider and minute, so that counting reads at most 1,440 rows per provider and not a
-- day's refunds. Settle adds to them in its own transaction, under the lock of the brake's row, which it takes last.
-- A limit per account needs a second table of this shape.

CREATE TABLE makegood_refund_sums (
    provider   text NOT NULL,
    slot       bigint NOT NULL CHECK (slot BETWEEN 0 AND 2879),
    began_at   timestamptz NOT NULL,
    refunds    bigint NOT NULL CHECK (refunds >= 0),
    credits    bigint NOT NULL CHECK (credits >= 0),
    own_faults bigint NOT NULL CHECK (own_faults >= 0),
    PRIMARY KEY (provider, slot)
) WITH (fillfactor = 50);
COMMENT ON TABLE makegood_refund_sums IS 'Refunds per provider and minute since the last release, for the limits of the brake. A row is written over when it is two days old; none is ever deleted.';
COMMENT ON COLUMN makegood_refund_sums.slot IS 'The minute, counted from 1970 modulo two days.';
COMMENT ON COLUMN makegood_refund_sums.began_at IS 'The minute. Ahead of now, after the clock was put back: it counts until its time has passed.';
COMMENT ON COLUMN makegood_refund_sums.credits IS 'Stops at the end of the range, where every limit counts as reached.';
COMMENT ON COLUMN makegood_refund_sums.own_faults IS 'Refunds that rest on nothing but faults of ours.';
CREATE INDEX makegood_refund_sums_by_time ON makegood_refund_sums (began_at);

-- What the last day's refunds count for. Dated ahead of now, they count too, as they did until now.
INSERT INTO makegood_refund_sums (provider, slot, began_at, refunds, credits, own_faults)
SELECT m.provider, m.slot, max(m.began_at), count(*) FILTER (WHERE m.counts), least(coalesce(sum(m.credits) FILTER (WHERE m.counts), 0), 9223372036854775807)::bigint,
       count(*) FILTER (WHERE m.own_fault)
FROM (
    SELECT f.provider, date_trunc('minute', f.refunded_at) AS began_at,
           mod(floor(extract(epoch FROM f.refunded_at) / 60)::bigint, 2880) AS slot,
           f.subscription_credits::numeric + f.wallet_credits AS credits,
           f.refunded_at >= coalesce(b.released_at, '-infinity') OR b.released_at > clock_timestamp() AS counts,
           (f.refunded_at >= coalesce(b.own_faults_released_at, '-infinity') OR b.own_faults_released_at > clock_timestamp())
           AND (r.reason = 'recovery_failed'
                OR r.reason = 'unconfirmed' AND a.verdict IN ('unauthorized', 'unknown_provider', 'unreadable')) IS TRUE AS own_fault
    FROM makegood_refunds f
    CROSS JOIN makegood_brake b
    JOIN makegood_resolutions r ON r.id = f.resolution_id
    LEFT JOIN makegood_answers a ON a.id = r.answer_id
    WHERE f.refunded_at >= clock_timestamp() - interval '24 hours' AND f.refunded_at >= '1970-01-01'
) AS m
GROUP BY m.provider, m.slot;

-- Passes of an older version may still run. They lock the brake first and do not know the sums: what they refund is added here.
CREATE FUNCTION makegood_add_refund_sums() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO makegood_refund_sums AS s (provider, slot, began_at, refunds, credits, own_faults)
    SELECT n.provider, mod(floor(extract(epoch FROM n.refunded_at) / 60)::bigint, 2880), date_trunc('minute', n.refunded_at), count(*),
           least(sum(n.subscription_credits::numeric + n.wallet_credits), 9223372036854775807)::bigint,
           count(*) FILTER (WHERE r.reason = 'recovery_failed'
                            OR r.reason = 'unconfirmed' AND a.verdict IN ('unauthorized', 'unknown_provider', 'unreadable'))
    FROM new_refunds n
    JOIN makegood_resolutions r ON r.id = n.resolution_id
    LEFT JOIN makegood_answers a ON a.id = r.answer_id
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
$$;
-- With its owner's rights: the role of an older version has none on the new table.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION makegood_add_refund_sums() SET search_path TO %s, pg_temp',
                   (SELECT string_agg(quote_ident(s.name), ', ' ORDER BY s.nth) FROM unnest(current_schemas(false)) WITH ORDINALITY AS s(name, nth)));
END
$$;
CREATE TRIGGER added_to_sums AFTER INSERT ON makegood_refunds REFERENCING NEW TABLE AS new_refunds FOR EACH STATEMENT
    WHEN (current_setting('makegood.adds_refund_sums', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION makegood_add_refund_sums();

-- Locked first in every settle. A charge or a balance that is busy after that is locked by a session that is not makegood's: such a
-- session delays its own case only, while settles of several processes wait for each other.
CREATE TABLE makegood_accounts (
    account_id text PRIMARY KEY
);
COMMENT ON TABLE makegood_accounts IS 'Accounts for which makegood has settled something. A settle locks their rows, so that settles of one account run one after the other.';

-- What a release of the brake makes due, in portions.
CREATE INDEX makegood_orphans_held_by_brake ON makegood_orphans (id) WHERE state = 'held' AND reason = 'brake';

-- Locks balances without waiting, in the order of their keys, and returns those that another session has locked. Where balances
-- are a view whose rows cannot be locked, nothing is locked and none is returned.
CREATE FUNCTION makegood_try_lock_balances(list jsonb) RETURNS TABLE (account_id text, bucket text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    -- Key by key in the order of the list, which is that of the keys, and by the index however many balances there are.
    RETURN QUERY
    SELECT d.account_id, d.bucket
    FROM (SELECT e.value ->> 'account_id' AS account_id, e.value ->> 'bucket' AS bucket
          FROM jsonb_array_elements(list) WITH ORDINALITY AS e(value, nth) ORDER BY e.nth) AS d
    WHERE (SELECT count(*) FROM balances b WHERE b.account_id = d.account_id AND b.bucket = d.bucket)
          > (SELECT count(*) FROM (SELECT 1 FROM balances b WHERE b.account_id = d.account_id AND b.bucket = d.bucket
                                   FOR UPDATE OF b SKIP LOCKED) AS held);
-- A view with GROUP BY; one whose owner, or who asks, may write through its trigger only; what is no table at all.
EXCEPTION WHEN feature_not_supported OR insufficient_privilege OR wrong_object_type THEN
    NULL;
END
$$;
COMMENT ON FUNCTION makegood_try_lock_balances(jsonb) IS 'Holds the balances that are about to get credits back, but for those that another session has locked: these are returned, and their refunds wait.';
