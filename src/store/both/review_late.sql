-- review_late: refunded items whose job succeeded after all, with the evidence. $1: noticed from
-- then on. $2: before this. $3: at most this many. never_stored: paid for at the provider and not
-- delivered, as long as no output is stored for it.
SELECT l.charge_id, l.output_index, r.account_id, l.provider, l.model, l.provider_job_id, l.kind,
       l.noticed_at, l.noticed_by,
       coalesce(l.stored_output_id, (SELECT min(d.stored_output_id) FROM makegood_deliveries d
                                     WHERE d.charge_id = l.charge_id
                                       AND d.output_index = l.output_index)) AS stored_output_id,
       r.reason, r.refunded_at, r.subscription_credits, r.wallet_credits, c.charged_at,
       l.answer_id, a.asked_at, a.verdict, a.request, a.http_status, a.excerpt,
       z.erased_at, z.by_whom AS erased_by, z.reason AS erased_for
FROM makegood_late_successes l
JOIN makegood_refunds r ON r.id = l.refund_id
LEFT JOIN charges c ON c.id = l.charge_id
LEFT JOIN makegood_answers a ON a.id = l.answer_id
LEFT JOIN makegood_erasures z ON z.id = a.erasure_id
WHERE l.noticed_at >= $1 AND l.noticed_at < $2
ORDER BY l.provider, l.noticed_at, l.id
LIMIT $3
