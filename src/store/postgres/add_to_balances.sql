-- add_to_balances: credits go back to balances (P03). $1: JSON list of {account_id, bucket, credits} in the order of the keys.
-- One row comes back for each balance row that was hit: exactly one a key, otherwise the transaction is rolled back and the items are held.
-- A function, for the order: one UPDATE of them all would lock in whatever order its plan has, and two processes could wait in a ring.
SELECT account_id, bucket FROM makegood_add_to_balances($1::jsonb)
