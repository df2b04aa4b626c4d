-- review_made_good: resolutions by provider, kind and reason, and refunds that were taken back
-- (with credits below zero). $1: from then on. Credits come in two halves, so that no sum
-- overflows.
SELECT provider, 'refund' AS kind, reason, count(*) AS items,
       CAST(sum(subscription_credits >> 32) AS bigint) AS subscription_high,
       CAST(sum(subscription_credits & 4294967295) AS bigint) AS subscription_low,
       CAST(sum(wallet_credits >> 32) AS bigint) AS wallet_high,
       CAST(sum(wallet_credits & 4294967295) AS bigint) AS wallet_low
FROM makegood_refunds
WHERE refunded_at >= $1
GROUP BY provider, reason
UNION ALL
SELECT v.provider, v.kind, s.reason, count(*), 0, 0, 0, 0
FROM makegood_recoveries v
JOIN makegood_resolutions s ON s.id = v.resolution_id
WHERE v.recovered_at >= $1
GROUP BY v.provider, v.kind, s.reason
UNION ALL
SELECT r.provider, 'reverse', 'by_hand', count(*),
       CAST(sum((-b.subscription_credits) >> 32) AS bigint),
       CAST(sum((-b.subscription_credits) & 4294967295) AS bigint),
       CAST(sum((-b.wallet_credits) >> 32) AS bigint),
       CAST(sum((-b.wallet_credits) & 4294967295) AS bigint)
FROM makegood_refund_reversals b
JOIN makegood_refunds r ON r.id = b.refund_id
WHERE b.reversed_at >= $1
GROUP BY r.provider
ORDER BY 1, 2, 3
