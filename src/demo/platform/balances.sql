-- balances: every balance with the sums of its ledger entries.
-- $1: entries of the platform after this instant count as `since`.
SELECT b.account_id, b.bucket, b.credits,
       coalesce(sum(l.credits), 0) AS posted,
       coalesce(sum(CASE WHEN l.posted_at > $1 AND l.refund_id IS NULL THEN l.credits END), 0)
           AS since,
       coalesce(sum(CASE WHEN l.refund_id IS NOT NULL THEN l.credits END), 0) AS given_back
FROM balances b
LEFT JOIN ledger_entries l ON l.account_id = b.account_id AND l.bucket = b.bucket
GROUP BY b.account_id, b.bucket, b.credits
ORDER BY b.account_id, b.bucket
