-- brake_recent: what was refunded lately, per provider. $1: since when for the hour. $2: since when for the day ($2 <= $1).
-- Sums stop at the end of the range rather than break.
SELECT provider, count(*) FILTER (WHERE refunded_at > $1) AS hour_refunds,
       least(coalesce(sum(subscription_credits + wallet_credits) FILTER (WHERE refunded_at > $1), 0), 9223372036854775807)::bigint AS hour_credits,
       count(*) AS day_refunds, least(coalesce(sum(subscription_credits + wallet_credits), 0), 9223372036854775807)::bigint AS day_credits
FROM makegood_refunds
WHERE refunded_at > $2
GROUP BY provider
