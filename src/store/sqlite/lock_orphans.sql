-- lock_orphans: returns the token each of the listed orphans has now; the transaction is the only writer there is.
-- $1: JSON list of orphan ids. What is resolved meanwhile returns no row.
SELECT id, lease_token, leased_until
FROM makegood_orphans
WHERE id IN (SELECT value FROM json_each($1)) AND state IN ('open', 'held')
ORDER BY id
