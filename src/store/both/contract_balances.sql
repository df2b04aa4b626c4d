-- contract_balances: whether the relation has the columns that makegood needs, and a row to see
-- what is in them.
SELECT account_id, bucket, credits FROM balances LIMIT 1
