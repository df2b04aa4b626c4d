-- post_refunds: refunds, their ledger entries and their balances, in one step (P01, P03). The
-- function runs with its owner's rights and reads account, draw and price itself; it refuses what
-- the platform's own rows do not allow (migration 0012). $1: JSON list of {charge_id, output_index,
-- subscription, wallet}. A row comes back for each balance row that was hit: exactly one for each
-- account and bucket, or the transaction is rolled back and the items are held.
SELECT account_id, bucket FROM makegood_post_refunds($1::jsonb)
