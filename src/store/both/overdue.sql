-- overdue: open and held items inside their window whose refund_by had passed at $1, except those
-- that an account's own limits hold. $2: now. $3: windows that end later are left out, by the index
-- on the window's end.
SELECT count(*) AS items
FROM makegood_orphans
WHERE state IN ('open', 'held') AND refund_by <= $1 AND window_ends_at > $2 AND window_ends_at <= $3
  AND NOT (state = 'held' AND held_account IS NOT NULL)
