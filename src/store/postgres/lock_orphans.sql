-- lock_orphans: locks the listed orphans in the order of their ids and returns the token each has now.
-- $1: JSON list of orphan ids. resolved 1: it is not open any more.
SELECT id, lease_token, leased_until, CASE WHEN state IN ('open', 'held') THEN 0 ELSE 1 END::bigint AS resolved
FROM makegood_orphans
WHERE id = ANY (ARRAY(SELECT v::bigint FROM jsonb_array_elements_text($1::jsonb) AS v))
ORDER BY id
FOR UPDATE
