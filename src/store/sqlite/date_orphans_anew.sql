-- date_orphans_anew: the clock was ahead for a while. Open orphans that bear times still to come
-- are due now, theirs is nobody's lease, their first question was now at the latest, and their
-- doubt ends when it would if they had been opened now. $1: now. $2: what is later was written by a
-- clock that was ahead. $3: nothing is put off, $4: or leased, beyond this. $5: from the charge to
-- the end of doubt, $6: what an orphan opened late gets; microseconds. $7: as $3, of what the
-- limits of an account hold: that is looked at once a day. Doubt ends before the window does, or so
-- long after the opening: what ends later than both was opened at a time still to come. opened_at
-- stays what it was: with its event it tells of that clock. A worker that is still at it loses its
-- lease and says so. Costs follow what is open.
UPDATE makegood_orphans
SET due_at = CASE WHEN due_at > CASE WHEN held_account IS NULL THEN $3 ELSE $7 END THEN $1
    ELSE due_at END,
    leased_until = CASE WHEN leased_until > $4 THEN NULL ELSE leased_until END,
    first_asked_at = CASE WHEN first_asked_at > $2 THEN $1 ELSE first_asked_at END,
    last_asked_at = CASE WHEN last_asked_at > $2 THEN $1 ELSE last_asked_at END,
    refund_by = CASE WHEN refund_by > max(window_ends_at, $2 + $6)
                     THEN max(charged_at + $5, $1 + $6) ELSE refund_by END,
    urgent_at = CASE WHEN refund_by > max(window_ends_at, $2 + $6)
                     THEN min(urgent_at, max(charged_at + $5, $1 + $6)) ELSE urgent_at END
WHERE state IN ('open', 'held')
  AND (due_at > CASE WHEN held_account IS NULL THEN $3 ELSE $7 END OR leased_until > $4
       OR first_asked_at > $2 OR last_asked_at > $2
       OR refund_by > max(window_ends_at, $2 + $6))
RETURNING id
