-- review_made_good_items: each item that was made good, and each refund that was taken back (with
-- credits below zero). $1: from then on. $2: before this.
SELECT r.charge_id, r.output_index, r.account_id, r.provider, r.model, 'refund' AS kind, r.reason,
       c.charged_at, r.refunded_at AS at,
       r.subscription_credits, r.wallet_credits
FROM makegood_refunds r
LEFT JOIN charges c ON c.id = r.charge_id
WHERE r.refunded_at >= $1 AND r.refunded_at < $2
UNION ALL
SELECT v.charge_id, v.output_index, c.account_id, v.provider, c.model, v.kind, s.reason,
       c.charged_at, v.recovered_at, 0, 0
FROM makegood_recoveries v
JOIN makegood_resolutions s ON s.id = v.resolution_id
LEFT JOIN charges c ON c.id = v.charge_id
WHERE v.recovered_at >= $1 AND v.recovered_at < $2
UNION ALL
SELECT b.charge_id, b.output_index, b.account_id, r.provider, r.model, 'reverse', 'by_hand',
       c.charged_at, b.reversed_at,
       -b.subscription_credits, -b.wallet_credits
FROM makegood_refund_reversals b
JOIN makegood_refunds r ON r.id = b.refund_id
LEFT JOIN charges c ON c.id = b.charge_id
WHERE b.reversed_at >= $1 AND b.reversed_at < $2
ORDER BY 9, 1, 2
