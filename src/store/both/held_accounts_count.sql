-- held_accounts_count: the number of accounts that are held by their own limits.
SELECT count(*) AS accounts FROM makegood_accounts WHERE held_at IS NOT NULL
