-- date_orphans_anew: the database's clock was ahead for a while. Open orphans that bear times still to come are due now, theirs is
-- nobody's lease, their first question was now at the latest, and their doubt ends when it would if they had been opened now.
-- $1: now. $2: beyond this nothing is put off or leased. $3: from the charge to the end of doubt, $4: what an orphan opened late gets;
-- microseconds. A worker that is still at it loses its lease and says so. Costs follow what is open.
UPDATE makegood_orphans
SET due_at = CASE WHEN due_at > $2 THEN $1 ELSE due_at END,
    leased_until = CASE WHEN leased_until > $2 THEN NULL ELSE leased_until END,
    first_asked_at = least(first_asked_at, $1),
    last_asked_at = least(last_asked_at, $1),
    refund_by = CASE WHEN opened_at > $1
                     THEN least(refund_by, greatest(charged_at + $3 * interval '1 microsecond', $1 + $4 * interval '1 microsecond'))
                     ELSE refund_by END,
    urgent_at = CASE WHEN opened_at > $1
                     THEN least(urgent_at, greatest(charged_at + $3 * interval '1 microsecond', $1 + $4 * interval '1 microsecond'))
                     ELSE urgent_at END
WHERE state IN ('open', 'held')
  AND (due_at > $2 OR leased_until > $2 OR first_asked_at > $1 OR last_asked_at > $1 OR opened_at > $1)
