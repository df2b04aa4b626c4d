-- extend_leases: a long copy is still at work. $1: JSON list of orphan ids with their tokens
-- {orphan_id, lease_token}. $2: until.
UPDATE makegood_orphans AS o
SET leased_until = $2
FROM (SELECT value ->> 'orphan_id' AS orphan_id, value ->> 'lease_token' AS lease_token
      FROM json_each($1)) AS d
WHERE o.id = d.orphan_id AND o.lease_token = d.lease_token AND o.leased_until IS NOT NULL
