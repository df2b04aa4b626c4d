-- account_release: a person releases one account; what was refunded to it before no longer counts
-- for its limits. $1: the account. $2: now. $3: a day before now: older refunds count for nothing
-- anyway. A row comes back when it was held.
UPDATE makegood_accounts
SET held_at = NULL, held_reason = NULL, released_at = $2,
    released_after = coalesce((SELECT max(r.resolution_id) FROM makegood_refunds r
                               WHERE r.account_id = $1 AND r.refunded_at >= $3), 0)
WHERE account_id = $1 AND held_at IS NOT NULL
RETURNING account_id
