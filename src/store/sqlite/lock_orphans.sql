-- lock_orphans: returns the token each of the listed orphans has now; the transaction is the only
-- writer there is. $1: JSON list of orphan ids. resolved 1: it is not open any more.
SELECT id, lease_token, leased_until, CASE WHEN state IN ('open', 'held') THEN 0
    ELSE 1 END AS resolved
FROM makegood_orphans
WHERE id IN (SELECT value FROM json_each($1))
ORDER BY id
