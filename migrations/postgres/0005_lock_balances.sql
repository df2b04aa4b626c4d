-- Settle's last look at what the platform has given back itself is only as good as what cannot change after it. A platform
-- that refunds changes the account's balance in the same transaction: who holds the balance's row, waits for it or makes it wait.

-- Locks balances one after the other, in the order of the list, which is that of the keys. Where balances are a view whose rows
-- cannot be locked, nothing is locked: whoever gives such a platform's refunds has to look at the ledger under its own lock.
CREATE FUNCTION makegood_lock_balances(list jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    due record;
BEGIN
    FOR due IN
        SELECT d.value ->> 'account_id' AS account_id, d.value ->> 'bucket' AS bucket
        FROM jsonb_array_elements(list) WITH ORDINALITY AS d(value, nth)
        ORDER BY d.nth
    LOOP
        PERFORM 1 FROM balances AS b WHERE b.account_id = due.account_id AND b.bucket = due.bucket FOR UPDATE OF b;
    END LOOP;
-- A view with GROUP BY; one whose owner, or who asks, may write through its trigger only; what is no table at all.
EXCEPTION WHEN feature_not_supported OR insufficient_privilege OR wrong_object_type THEN
    NULL;
END
$$;
COMMENT ON FUNCTION makegood_lock_balances(jsonb) IS 'Holds the balances that are about to get credits back, so that a refund of the platform is either seen or waits (P01).';
