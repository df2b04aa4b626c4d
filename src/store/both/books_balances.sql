-- books_balances: the next balances, each with the sum of the ledger's entries of its account and
-- bucket, for `makegood check --books`. $1, $2: account and bucket after which they begin. $3: at
-- most this many. Sums come in two halves (times 2^32, and the rest); entries is null if the ledger
-- has none. If the ledger has no index on the account, it is read whole, once for each batch of
-- balances. It is one statement, so that balance and entries are from one snapshot.
WITH chunk AS MATERIALIZED (
    SELECT b.account_id, b.bucket, b.credits
    FROM balances b
    WHERE b.account_id >= $1 AND (b.account_id, b.bucket) > ($1, $2)
    ORDER BY b.account_id, b.bucket
    LIMIT $3
), sums AS (
    SELECT e.account_id, e.bucket, count(*) AS entries,
           CAST(coalesce(sum(e.credits >> 32), 0) AS bigint) AS ledger_high,
           CAST(coalesce(sum(e.credits & 4294967295), 0) AS bigint) AS ledger_low
    FROM ledger_entries e
    WHERE e.account_id IN (SELECT account_id FROM chunk)
    GROUP BY e.account_id, e.bucket
)
SELECT b.account_id, b.bucket, b.credits, s.entries, s.ledger_high, s.ledger_low
FROM chunk b
LEFT JOIN sums s ON s.account_id = b.account_id AND s.bucket = b.bucket
ORDER BY b.account_id, b.bucket
