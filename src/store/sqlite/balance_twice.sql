-- balance_twice: adds 1 to a balance twice, and returns the value before each. Always rolled back.
-- Over a view with a trigger this has the effect of two concurrent writers: a trigger that applies
-- the difference ends at 2 more; one that writes the new value ends at 1 more and loses a refund.
-- $1: account. $2: bucket. Returns a row for each time.
UPDATE balances
SET credits = balances.credits + 1
FROM (SELECT 1 AS n UNION ALL SELECT 2) AS twice
WHERE balances.account_id = $1 AND balances.bucket = $2
RETURNING balances.account_id
