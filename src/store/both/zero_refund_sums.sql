-- zero_refund_sums: sets the sums to zero after a person has released the brake, so that earlier
-- refunds no longer count. $1: the minute of now. Runs after brake_release in the same transaction,
-- under the lock of the brake's row. A row that is dated ahead, from before the clock was set back,
-- gets the time of now: otherwise refunds that are added to it would count until that time has
-- passed.
UPDATE makegood_refund_sums
SET refunds = 0, credits = 0, own_faults = 0,
    began_at = CASE WHEN began_at > $1 THEN $1 ELSE began_at END
WHERE refunds > 0 OR credits > 0 OR own_faults > 0 OR began_at > $1
