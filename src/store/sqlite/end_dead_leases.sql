-- end_dead_leases: a lease that ran out while an object was being written is over, so that its
-- worker can settle no more. It counts as a death, and as a question if the job was retried alone,
-- as a claim counts it. $1: now. The journal leads, which is small, and never the orphans, which
-- are many.
UPDATE makegood_orphans
SET leased_until = NULL, deaths = deaths + 1, alone_since = NULL,
    questions = questions + CASE WHEN alone_since IS NULL THEN 0 ELSE 1 END,
    first_asked_at = coalesce(first_asked_at, alone_since),
    last_asked_at = coalesce(alone_since, last_asked_at)
WHERE id IN (SELECT u.orphan_id FROM makegood_uploads u)
  AND leased_until <= $1
  AND EXISTS (SELECT 1 FROM makegood_uploads u
              WHERE u.orphan_id = makegood_orphans.id
                AND u.lease_token = makegood_orphans.lease_token)
