-- contract_accounts: whether the relation has the columns that makegood needs, and a row to see
-- what is in them.
SELECT id, kind FROM accounts LIMIT 1
