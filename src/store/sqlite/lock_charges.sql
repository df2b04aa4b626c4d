-- lock_charges: locks makegood's row of each listed charge, making it if need be, in the order of
-- their ids.
-- $1: JSON list of {charge_id, account_id, subscription_drawn, wallet_drawn}. Before the orphans in
-- every settle that makes something good: items of one charge that are settled by two processes
-- wait here. Account and draw stay as they were first seen; settle compares them.
INSERT INTO makegood_charges (charge_id, account_id, subscription_drawn, wallet_drawn)
SELECT d.charge_id, d.account_id, d.subscription_drawn, d.wallet_drawn
FROM (SELECT value ->> 'charge_id' AS charge_id, value ->> 'account_id' AS account_id,
             value ->> 'subscription_drawn' AS subscription_drawn,
             value ->> 'wallet_drawn' AS wallet_drawn
             FROM json_each($1)) AS d
WHERE true
ORDER BY d.charge_id
ON CONFLICT (charge_id) DO UPDATE SET charge_id = excluded.charge_id
RETURNING charge_id, account_id, subscription_drawn, wallet_drawn, subscription_refunded,
    wallet_refunded
