-- story_refunds: refunds of one charge in the ledger that are not makegood's. $1: the charge's id.
SELECT l.id, l.output_index, l.bucket, l.credits, l.refund_id, l.posted_at
FROM ledger_entries l
WHERE l.kind = 'refund' AND l.charge_id = $1
  AND NOT EXISTS (SELECT 1 FROM makegood_refunds r WHERE r.id = l.refund_id)
ORDER BY l.posted_at, l.id
