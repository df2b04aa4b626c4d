-- account_sums: how the listed accounts stand with their own limits: held or not, and what was
-- refunded to each from $2 on, since its last release by a person. $1: JSON list of account ids.
-- Refunds of one that is held are not counted: they decide nothing. Read under the lock of
-- makegood's row of each account. Credits come in two halves (times 2^32, and the rest).
SELECT d.account_id, a.held_at, a.held_reason, s.refunds, s.credits_high, s.credits_low
FROM (SELECT v AS account_id FROM jsonb_array_elements_text($1::jsonb) AS v) AS d
LEFT JOIN LATERAL (SELECT m.held_at, m.held_reason, m.released_after FROM makegood_accounts m
                   WHERE m.account_id = d.account_id OFFSET 0) AS a ON true
CROSS JOIN LATERAL (
    SELECT count(*) AS refunds,
           CAST(coalesce(sum((r.subscription_credits + r.wallet_credits) >> 32), 0) AS bigint) AS credits_high,
           CAST(coalesce(sum((r.subscription_credits + r.wallet_credits) & 4294967295), 0) AS bigint) AS credits_low
    FROM makegood_refunds r
    WHERE r.account_id = d.account_id AND r.refunded_at >= $2
      AND r.resolution_id > coalesce(a.released_after, 0) AND a.held_at IS NULL
) AS s
