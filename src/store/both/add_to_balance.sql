-- add_to_balance: credits go back to one balance (P03). $1: account. $2: bucket. $3: credits.
-- Called in the order of the keys. Exactly one row must come back, otherwise the transaction is rolled back and the items are held.
-- RETURNING rather than a count of rows: over a view with a trigger SQLite counts none.
UPDATE balances SET credits = credits + $3 WHERE account_id = $1 AND bucket = $2 RETURNING account_id
