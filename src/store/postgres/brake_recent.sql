-- brake_recent: what was refunded lately, per provider. $1: since when for the hour. $2: since when for the day.
-- $3: since when for the pass. $4: the earliest of the three.
-- Sums stop at the end of the range rather than break.
SELECT provider,
       count(*) FILTER (WHERE refunded_at >= $1) AS hour_refunds,
       least(coalesce(sum(subscription_credits + wallet_credits) FILTER (WHERE refunded_at >= $1), 0), 9223372036854775807)::bigint AS hour_credits,
       count(*) FILTER (WHERE refunded_at >= $2) AS day_refunds,
       least(coalesce(sum(subscription_credits + wallet_credits) FILTER (WHERE refunded_at >= $2), 0), 9223372036854775807)::bigint AS day_credits,
       count(*) FILTER (WHERE refunded_at >= $3) AS pass_refunds,
       least(coalesce(sum(subscription_credits + wallet_credits) FILTER (WHERE refunded_at >= $3), 0), 9223372036854775807)::bigint AS pass_credits
FROM makegood_refunds
WHERE refunded_at >= $4
GROUP BY provider
