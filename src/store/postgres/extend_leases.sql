-- extend_leases: what is in flight stays ours. $1: JSON list of orphan ids with their tokens {orphan_id, lease_token}. $2: until.
-- What is locked is being settled, nobody can claim it meanwhile, and waiting for it in another order than settle's could end
-- in a deadlock: it is left out.
UPDATE makegood_orphans o
SET leased_until = $2
FROM (SELECT k.id
      FROM makegood_orphans k
      JOIN jsonb_to_recordset($1::jsonb) AS d(orphan_id bigint, lease_token bigint)
        ON k.id = d.orphan_id AND k.lease_token = d.lease_token
      WHERE k.leased_until IS NOT NULL
        AND k.id = ANY (ARRAY(SELECT (v ->> 'orphan_id')::bigint FROM jsonb_array_elements($1::jsonb) AS v))
      ORDER BY k.id
      FOR UPDATE OF k SKIP LOCKED) AS ours
WHERE o.id = ours.id
