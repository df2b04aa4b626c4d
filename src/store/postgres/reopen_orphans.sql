-- reopen_orphans: an item that looked delivered, or was recovered or relinked, and is not any more,
-- is looked at again. $1: JSON list of {charge_id, output_index}. $2: now. $3: what an orphan
-- opened late gets, microseconds. $4: due from then on. An item found undelivered may have been
-- made good by another pass before this statement begins: it is checked once more. A recovery whose
-- row the platform has removed proves the delivery: it is not reopened; one whose row hangs or lies
-- elsewhere is, to be put back (P10, P13). A refund is final: refunded items are never reopened.
-- Runs before supersede_resolutions in the same transaction.
UPDATE makegood_orphans u
SET state = 'open', reason = NULL, resolved_at = NULL, leased_until = NULL, waits = 0, questions = 0, first_asked_at = NULL,
    deaths = 0, alone_since = NULL,
    due_at = $4::timestamptz, lease_token = lease_token + 1,
    refund_by = greatest(refund_by, $2::timestamptz + $3 * interval '1 microsecond'),
    urgent_at = greatest(refund_by, $2::timestamptz + $3 * interval '1 microsecond')
WHERE u.id = ANY (ARRAY(
        SELECT o.id
        FROM jsonb_to_recordset($1::jsonb) AS d(charge_id text, output_index bigint)
        CROSS JOIN LATERAL (SELECT p.id FROM makegood_orphans p
                            WHERE p.charge_id = d.charge_id AND p.output_index = d.output_index OFFSET 0) AS o))
  AND u.state IN ('closed', 'recovered', 'relinked') AND (u.state <> 'closed' OR u.reason = 'delivered')
  AND (SELECT count(*) FROM makegood_deliveries v
       WHERE v.charge_id = u.charge_id AND v.output_index = u.output_index) = 0
  AND (SELECT count(*) FROM makegood_lost_outputs l
       WHERE l.charge_id = u.charge_id AND l.output_index = u.output_index) = 0
RETURNING id, charge_id, output_index, provider
