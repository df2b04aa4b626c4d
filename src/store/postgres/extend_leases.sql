-- extend_leases: a long copy is still at work. $1: JSON list of orphan ids with their tokens {orphan_id, lease_token}. $2: until.
UPDATE makegood_orphans o
SET leased_until = $2
FROM jsonb_to_recordset($1::jsonb) AS d(orphan_id bigint, lease_token bigint)
WHERE o.id = d.orphan_id AND o.lease_token = d.lease_token AND o.leased_until IS NOT NULL
