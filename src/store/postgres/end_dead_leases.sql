-- end_dead_leases: a lease that ran out while an object was being written is over, so that its worker can settle no more.
-- It counts as a death, and as a question if the job was retried alone, as a claim counts it.
-- $1: now. What is locked is being settled or claimed, and left for the next time.
-- The array makes the journal lead, which is small, and never the orphans, which are many.
UPDATE makegood_orphans o
SET leased_until = NULL, deaths = o.deaths + 1, alone_since = NULL,
    questions = o.questions + CASE WHEN o.alone_since IS NULL THEN 0 ELSE 1 END,
    first_asked_at = coalesce(o.first_asked_at, o.alone_since), last_asked_at = coalesce(o.alone_since, o.last_asked_at)
FROM (SELECT k.id
      FROM makegood_orphans k
      WHERE k.id = ANY (ARRAY(SELECT DISTINCT u.orphan_id FROM makegood_uploads u))
        AND k.leased_until <= $1
        AND EXISTS (SELECT 1 FROM makegood_uploads u WHERE u.orphan_id = k.id AND u.lease_token = k.lease_token)
      ORDER BY k.id
      FOR UPDATE OF k SKIP LOCKED) AS dead
WHERE o.id = dead.id
