-- accounts_held_since: accounts that are held by their own limits since $1 or later. $2: at most
-- this many.
SELECT account_id, held_at, held_reason
FROM makegood_accounts
WHERE held_at IS NOT NULL AND held_at >= $1
ORDER BY held_at, account_id
LIMIT $2
