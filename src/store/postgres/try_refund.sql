-- try_refund: posts one refund as makegood_post_refunds does, reads it back and rolls it back
-- before it returns. $1: JSON of {charge_id, output_index, subscription, wallet}. One row: what
-- balances held before and after, which were hit, and the refunds that the ledger shows of the
-- charge.
SELECT makegood_try_refund($1::jsonb)::text AS seen
