-- release_leases: gives claimed orphans back undecided. $1: JSON list of {orphan_id, lease_token,
-- due_at or null (as it was)}. Only leases that are still ours. What is due as before goes back
-- into the queue.
UPDATE makegood_orphans AS o
SET leased_until = NULL, alone_since = NULL, due_at = coalesce(d.due_at, o.due_at),
    queued = d.due_at IS NULL
FROM (SELECT value ->> 'orphan_id' AS orphan_id, value ->> 'lease_token' AS lease_token,
             value ->> 'due_at' AS due_at FROM json_each($1)) AS d
WHERE o.id = d.orphan_id AND o.lease_token = d.lease_token AND o.leased_until IS NOT NULL
