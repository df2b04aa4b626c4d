-- held_accounts: accounts that are held by their own limits, the newest first, with the number of
-- held refunds. $1: at most this many.
SELECT a.account_id, a.held_at, a.held_reason,
       (SELECT count(*) FROM makegood_orphans o
        WHERE o.held_account = a.account_id AND o.state = 'held') AS refunds
FROM makegood_accounts a
WHERE a.held_at IS NOT NULL
ORDER BY a.held_at DESC, a.account_id
LIMIT $1
