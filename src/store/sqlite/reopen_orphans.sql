-- reopen_orphans: an item that looked delivered, or was recovered or relinked, and is not any more,
-- is looked at again. $1: JSON list of {charge_id, output_index}. $2: now. $3: what an orphan
-- opened late gets, microseconds. $4: due from then on. What was found undelivered may have been
-- made good by another pass before this statement begins: it is looked at once more. A recovery
-- whose row the platform has removed proves the delivery: it is not reopened; one whose row hangs
-- or lies elsewhere is, to be put back (P10, P13). A refund is final: refunded items are never
-- reopened. Runs before supersede_resolutions in the same transaction.
UPDATE makegood_orphans
SET state = 'open', reason = NULL, resolved_at = NULL, leased_until = NULL, waits = 0,
    questions = 0, first_asked_at = NULL,
    deaths = 0, alone_since = NULL,
    due_at = $4, lease_token = lease_token + 1,
    refund_by = max(refund_by, $2 + $3), urgent_at = max(refund_by, $2 + $3)
WHERE state IN ('closed', 'recovered', 'relinked') AND (state <> 'closed' OR reason = 'delivered')
  AND (charge_id, output_index) IN (SELECT d.charge_id, d.output_index
                                    FROM (SELECT value ->> 'charge_id' AS charge_id,
                                                 value ->> 'output_index' AS output_index
                                                 FROM json_each($1)) AS d)
  AND NOT EXISTS (SELECT 1 FROM makegood_deliveries v
                  WHERE v.charge_id = makegood_orphans.charge_id
                    AND v.output_index = makegood_orphans.output_index)
  AND (SELECT count(*) FROM makegood_lost_outputs l
       WHERE l.charge_id = makegood_orphans.charge_id
         AND l.output_index = makegood_orphans.output_index) = 0
RETURNING id, charge_id, output_index, provider
