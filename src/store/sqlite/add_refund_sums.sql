-- add_refund_sums: adds what this transaction refunds to the sums of its minute. $1: JSON list of
-- {provider, slot, began_at, refunds, credits, own_faults}. A row of an earlier minute in the same
-- slot is at least two days old and is written over. One of a later minute was written while the
-- clock was ahead: it is added to, so that rather too much is counted. Credits stop at the end of
-- the range.
INSERT INTO makegood_refund_sums AS s (provider, slot, began_at, refunds, credits, own_faults)
SELECT d.provider, d.slot, d.began_at, d.refunds, d.credits, d.own_faults
FROM (SELECT value ->> 'provider' AS provider, value ->> 'slot' AS slot,
             value ->> 'began_at' AS began_at, value ->> 'refunds' AS refunds,
             value ->> 'credits' AS credits, value ->> 'own_faults' AS own_faults
             FROM json_each($1)) AS d
WHERE true
ORDER BY d.provider, d.slot
ON CONFLICT (provider, slot) DO UPDATE
SET began_at = max(s.began_at, excluded.began_at),
    refunds = CASE WHEN s.began_at < excluded.began_at THEN 0 ELSE s.refunds END + excluded.refunds,
    credits = CASE WHEN s.began_at < excluded.began_at THEN excluded.credits
                   WHEN s.credits > 9223372036854775807 - excluded.credits THEN 9223372036854775807
                   ELSE s.credits + excluded.credits END,
    own_faults = CASE WHEN s.began_at < excluded.began_at THEN 0
        ELSE s.own_faults END + excluded.own_faults
