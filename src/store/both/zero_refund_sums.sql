-- zero_refund_sums: a person has released the brake, and what was refunded before no longer counts.
-- $1: the minute of now. Runs after brake_release in the same transaction, under the lock of the
-- brake's row. A row dated ahead of now, from before the clock was put back, gets the time of now:
-- otherwise it would count what is added to it until that time has passed.
UPDATE makegood_refund_sums
SET refunds = 0, credits = 0, own_faults = 0,
    began_at = CASE WHEN began_at > $1 THEN $1 ELSE began_at END
WHERE refunds > 0 OR credits > 0 OR own_faults > 0 OR began_at > $1
