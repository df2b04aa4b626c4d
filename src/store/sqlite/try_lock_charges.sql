-- try_lock_charges: nothing is locked by others, the transaction is the only writer there is. $1:
-- what PostgreSQL would be given.
SELECT charge_id FROM makegood_charges WHERE $1 IS NULL
