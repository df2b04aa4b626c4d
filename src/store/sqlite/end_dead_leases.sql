-- end_dead_leases: a lease that ran out while an object was being written is over, so that its worker can settle no more.
-- $1: now.
UPDATE makegood_orphans
SET leased_until = NULL
WHERE leased_until <= $1
  AND id IN (SELECT u.orphan_id FROM makegood_uploads u WHERE u.lease_token = makegood_orphans.lease_token)
