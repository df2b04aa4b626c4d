-- post_reversals: takes refunds back that a person names: reversals, their ledger entries and their
-- balances, in one step. The function runs with its owner's rights, and takes account and credits
-- from makegood_refunds (migration 0012). A unique key refuses a second reversal of one refund. $1:
-- JSON list of {refund_id, by_whom, reason, reversed_at}. A row comes back for each balance row
-- that was hit.
SELECT account_id, bucket FROM makegood_post_reversals($1::jsonb)
