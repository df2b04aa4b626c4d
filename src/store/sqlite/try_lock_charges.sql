-- try_lock_charges: returns no row, because the transaction is the only writer. $1: as on
-- PostgreSQL.
SELECT charge_id FROM makegood_charges WHERE $1 IS NULL
