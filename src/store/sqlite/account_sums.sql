-- account_sums: how the listed accounts stand with their own limits: held or not, and what was
-- refunded to each from $2 on, since its last release by a person. $1: JSON list of account ids.
-- Refunds of one that is held are not counted: they decide nothing. Credits come in two halves
-- (times 2^32, and the rest).
SELECT d.value AS account_id, a.held_at, a.held_reason, count(r.id) AS refunds,
       coalesce(sum((r.subscription_credits + r.wallet_credits) >> 32), 0) AS credits_high,
       coalesce(sum((r.subscription_credits + r.wallet_credits) & 4294967295), 0) AS credits_low
FROM json_each($1) AS d
LEFT JOIN makegood_accounts a ON a.account_id = d.value
LEFT JOIN makegood_refunds r ON r.account_id = d.value AND r.refunded_at >= $2
                            AND r.resolution_id > coalesce(a.released_after, 0)
                            AND a.held_at IS NULL
GROUP BY d.value, a.held_at, a.held_reason
