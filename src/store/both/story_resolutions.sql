-- story_resolutions: the resolutions of the items of one charge, superseded ones too, with what was
-- refunded, taken back or recovered. $1: the charge's id. Two halves, because current and
-- superseded ones have an index each.
SELECT s.id AS id, s.output_index, s.kind, s.reason, s.rule, s.resolved_at, s.decided_by,
       s.answer_id, s.superseded_at,
       r.id AS refund_id, r.subscription_credits, r.wallet_credits,
       v.stored_output_id, v.from_charge_id, v.from_output_index, v.uri, v.size_bytes, v.sha256,
       v.content_type, v.source_host,
       b.by_whom, b.reason AS reversal_reason, b.reversed_at
FROM makegood_resolutions s
LEFT JOIN makegood_refunds r ON r.resolution_id = s.id
LEFT JOIN makegood_refund_reversals b ON b.refund_id = r.id
LEFT JOIN makegood_recoveries v ON v.resolution_id = s.id
WHERE s.charge_id = $1 AND s.superseded_at IS NULL
UNION ALL
SELECT s.id AS id, s.output_index, s.kind, s.reason, s.rule, s.resolved_at, s.decided_by,
       s.answer_id, s.superseded_at,
       r.id, r.subscription_credits, r.wallet_credits,
       v.stored_output_id, v.from_charge_id, v.from_output_index, v.uri, v.size_bytes, v.sha256,
       v.content_type, v.source_host,
       b.by_whom, b.reason AS reversal_reason, b.reversed_at
FROM makegood_resolutions s
LEFT JOIN makegood_refunds r ON r.resolution_id = s.id
LEFT JOIN makegood_refund_reversals b ON b.refund_id = r.id
LEFT JOIN makegood_recoveries v ON v.resolution_id = s.id
WHERE s.charge_id = $1 AND s.superseded_at IS NOT NULL
ORDER BY 1
