-- insert_refunds: one refund for each item; a second one violates the unique key and rolls the
-- transaction back. $1: JSON list of {id, resolution_id, charge_id, output_index, account_id,
-- provider, model, subscription_credits, wallet_credits, reason, refunded_at}.
INSERT INTO makegood_refunds (id, resolution_id, charge_id, output_index, account_id, provider,
                              model, subscription_credits, wallet_credits, reason, refunded_at)
SELECT d.id, d.resolution_id, d.charge_id, d.output_index, d.account_id, d.provider, d.model,
       d.subscription_credits, d.wallet_credits, d.reason, d.refunded_at
FROM (SELECT value ->> 'id' AS id, value ->> 'resolution_id' AS resolution_id,
             value ->> 'charge_id' AS charge_id, value ->> 'output_index' AS output_index,
             value ->> 'account_id' AS account_id, value ->> 'provider' AS provider,
             value ->> 'model' AS model, value ->> 'subscription_credits' AS subscription_credits,
             value ->> 'wallet_credits' AS wallet_credits, value ->> 'reason' AS reason,
             value ->> 'refunded_at' AS refunded_at
             FROM json_each($1)) AS d
WHERE true
