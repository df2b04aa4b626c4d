-- lock_orphans: locks the listed orphans in the order of their ids and returns the token each has now.
-- $1: JSON list of orphan ids. What is resolved meanwhile returns no row.
SELECT id, lease_token, leased_until
FROM makegood_orphans
WHERE id IN (SELECT v::bigint FROM jsonb_array_elements_text($1::jsonb) AS v) AND state IN ('open', 'held')
ORDER BY id
FOR UPDATE
