-- hasten_failed: waiting orphans whose items the platform recorded as failed since the last question are due now (P19).
-- $1: JSON list of orphan ids. $2: now.
-- A locked row is being settled by another process and is left out; the next pass finds it if it still waits.
UPDATE makegood_orphans o
SET due_at = $2
FROM (SELECT k.id
      FROM makegood_orphans k
      WHERE k.id = ANY (ARRAY(SELECT v::bigint FROM jsonb_array_elements_text($1::jsonb) AS v))
        AND k.state = 'open' AND k.due_at > $2
      ORDER BY k.id
      FOR UPDATE SKIP LOCKED) AS waiting
WHERE o.id = waiting.id
