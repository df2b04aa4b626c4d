-- next_refund: the first refund after a position: a row around it cannot be read. $1, $2: the
-- position (time, id), as in find_stored_late. $3: the latest time to read.
SELECT r.id AS refund_id, r.charge_id, r.output_index, r.refunded_at AS at
FROM makegood_refunds r
WHERE r.refunded_at >= $1 AND (r.refunded_at, r.id) > ($1, $2) AND r.refunded_at <= $3
ORDER BY r.refunded_at, r.id
LIMIT 1
