-- raise_refunded: what each charge has been given back by now. $1: JSON list of {charge_id, subscription, wallet} to add.
-- A CHECK keeps it below what was drawn.
UPDATE makegood_charges c
SET subscription_refunded = c.subscription_refunded + d.subscription, wallet_refunded = c.wallet_refunded + d.wallet
FROM jsonb_to_recordset($1::jsonb) AS d(charge_id text, subscription bigint, wallet bigint)
WHERE c.charge_id = d.charge_id
  AND c.charge_id = ANY (ARRAY(SELECT v ->> 'charge_id' FROM jsonb_array_elements($1::jsonb) AS v))
