-- brake_recent: what was refunded lately, per provider. $1: since when for the hour. $2: since when for the day.
-- $3: since when for the pass. $4: the earliest of the three.
-- total() and not sum(), which breaks at the end of the range; the cast stops there.
SELECT provider,
       count(*) FILTER (WHERE refunded_at >= $1) AS hour_refunds,
       CAST(total(subscription_credits + wallet_credits) FILTER (WHERE refunded_at >= $1) AS integer) AS hour_credits,
       count(*) FILTER (WHERE refunded_at >= $2) AS day_refunds,
       CAST(total(subscription_credits + wallet_credits) FILTER (WHERE refunded_at >= $2) AS integer) AS day_credits,
       count(*) FILTER (WHERE refunded_at >= $3) AS pass_refunds,
       CAST(total(subscription_credits + wallet_credits) FILTER (WHERE refunded_at >= $3) AS integer) AS pass_credits
FROM makegood_refunds
WHERE refunded_at >= $4
GROUP BY provider
