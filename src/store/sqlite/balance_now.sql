-- balance_now: the credits of one balance. $1: account. $2: bucket.
SELECT credits FROM balances WHERE account_id = $1 AND bucket = $2
