-- brake_recent: what was refunded lately, per provider. $1: since when for the hour. $2: since when for the day ($2 <= $1).
SELECT provider, count(*) FILTER (WHERE refunded_at > $1) AS hour_refunds,
       coalesce(sum(subscription_credits + wallet_credits) FILTER (WHERE refunded_at > $1), 0)::bigint AS hour_credits,
       count(*) AS day_refunds, coalesce(sum(subscription_credits + wallet_credits), 0)::bigint AS day_credits
FROM makegood_refunds
WHERE refunded_at > $2
GROUP BY provider
