-- brake_own_faults: refunds since $1 that rested on nothing but a fault of ours: nobody could tell, because our key was refused, the
-- provider's file was missing or its answers could not be read; or the output was offered, and we could not bring it home.
-- Costs follow a day's refunds.
SELECT count(*) AS refunds
FROM makegood_refunds f
JOIN makegood_resolutions r ON r.id = f.resolution_id
LEFT JOIN makegood_answers a ON a.id = r.answer_id
WHERE f.refunded_at >= $1
  AND (r.reason = 'recovery_failed'
       OR r.reason = 'unconfirmed' AND a.verdict IN ('unauthorized', 'unknown_provider', 'unreadable'))
