-- claim_item: leases the unresolved orphan of one item, due or not, for a person. $1: charge. $2:
-- output index. $3: now. $4: leased until. Raises the token and returns it, like every claim. No
-- row: another worker has leased it, or it is resolved.
UPDATE makegood_orphans
SET lease_token = lease_token + 1, leased_until = $4, alone_since = NULL,
    deaths = deaths + CASE WHEN leased_until IS NULL THEN 0 ELSE 1 END
WHERE charge_id = $1 AND output_index = $2 AND state IN ('open', 'held')
  AND (leased_until IS NULL OR leased_until <= $3)
RETURNING id, lease_token
