-- release_leases: gives claimed orphans back undecided. $1: JSON list of {orphan_id, lease_token, due_at or null (as it was)}.
-- Only leases that are still ours. What is due as before goes back into the queue.
UPDATE makegood_orphans o
SET leased_until = NULL, alone_since = NULL, due_at = coalesce(d.due_at, o.due_at), queued = d.due_at IS NULL
FROM jsonb_to_recordset($1::jsonb) AS d(orphan_id bigint, lease_token bigint, due_at timestamptz)
WHERE o.id = d.orphan_id
  -- Named twice: the table is read by its key, whatever the planner believes its size to be.
  AND o.id = ANY (ARRAY(SELECT (v ->> 'orphan_id')::bigint FROM jsonb_array_elements($1::jsonb) AS v))
  AND o.lease_token = d.lease_token AND o.leased_until IS NOT NULL
