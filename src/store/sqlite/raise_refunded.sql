-- raise_refunded: adds to the refunded credits of each charge. $1: JSON list of {charge_id,
-- subscription, wallet} to add. A CHECK keeps the sum at or below the draw.
UPDATE makegood_charges AS c
SET subscription_refunded = c.subscription_refunded + d.subscription,
    wallet_refunded = c.wallet_refunded + d.wallet
FROM (SELECT value ->> 'charge_id' AS charge_id, value ->> 'subscription' AS subscription,
             value ->> 'wallet' AS wallet FROM json_each($1)) AS d
WHERE c.charge_id = d.charge_id
