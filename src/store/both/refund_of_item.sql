-- refund_of_item: makegood's refund of one item, with what was drawn for its charge, and its
-- reversal if it has one. $1: charge. $2: output index. No row: makegood has not refunded it.
SELECT r.id, r.account_id, r.subscription_credits, r.wallet_credits, r.refunded_at,
       m.subscription_drawn, m.wallet_drawn, o.id AS orphan_id, b.by_whom, b.reason, b.reversed_at
FROM makegood_refunds r
JOIN makegood_charges m ON m.charge_id = r.charge_id
JOIN makegood_orphans o ON o.charge_id = r.charge_id AND o.output_index = r.output_index
LEFT JOIN makegood_refund_reversals b ON b.refund_id = r.id
WHERE r.charge_id = $1 AND r.output_index = $2
