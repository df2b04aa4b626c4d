-- brake_own_faults: refunds since $1 that rested on nothing but a fault of ours. Costs follow a day's refunds.
SELECT count(*) AS refunds
FROM makegood_refunds f
JOIN makegood_resolutions r ON r.id = f.resolution_id
JOIN makegood_answers a ON a.id = r.answer_id
WHERE f.refunded_at >= $1 AND r.reason = 'unconfirmed' AND a.verdict IN ('unauthorized', 'unknown_provider', 'unreadable')
