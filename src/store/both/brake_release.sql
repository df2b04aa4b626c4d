-- brake_release: lets refunds go on; what was refunded before no longer counts. $1: now. A row comes back when there was
-- something to release: the brake was on, or refunds were held that rest on faults of ours.
UPDATE makegood_brake SET engaged_at = NULL, reason = NULL, released_at = $1
WHERE id = 1 AND (engaged_at IS NOT NULL
                  OR EXISTS (SELECT 1 FROM makegood_orphans WHERE state = 'held' AND reason = 'brake'))
RETURNING id
