-- review_made_good: what was made good, by provider, way and reason. $1: from then on.
SELECT provider, 'refund' AS kind, reason, count(*) AS items,
       CAST(sum(subscription_credits) AS bigint) AS subscription_credits, CAST(sum(wallet_credits) AS bigint) AS wallet_credits
FROM makegood_refunds
WHERE refunded_at >= $1
GROUP BY provider, reason
UNION ALL
SELECT v.provider, v.kind, s.reason, count(*), 0, 0
FROM makegood_recoveries v
JOIN makegood_resolutions s ON s.id = v.resolution_id
WHERE v.recovered_at >= $1
GROUP BY v.provider, v.kind, s.reason
ORDER BY 1, 2, 3
