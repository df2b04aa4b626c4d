-- search_balances_by_account: whether balances can be searched by the account. Only explained,
-- never run.
SELECT account_id, bucket FROM balances WHERE account_id = CAST($1 AS text)
