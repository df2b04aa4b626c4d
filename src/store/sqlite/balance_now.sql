-- balance_now: what one balance holds. $1: account. $2: bucket.
SELECT credits FROM balances WHERE account_id = $1 AND bucket = $2
