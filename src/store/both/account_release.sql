-- account_release: a person releases one account; earlier refunds to it no longer count towards its
-- limits. $1: the account. $2: now. $3: a day before now: older refunds do not count in any case.
-- Returns a row if it was held.
UPDATE makegood_accounts
SET held_at = NULL, held_reason = NULL, released_at = $2,
    released_after = coalesce((SELECT max(r.resolution_id) FROM makegood_refunds r
                               WHERE r.account_id = $1 AND r.refunded_at >= $3), 0)
WHERE account_id = $1 AND held_at IS NOT NULL
RETURNING account_id
