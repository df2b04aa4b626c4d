-- insert_refunds: one refund an item; a second one breaks the unique key and with it the transaction.
-- $1: JSON list of {id, resolution_id, charge_id, output_index, account_id, provider, model, subscription_credits, wallet_credits, reason, refunded_at}.
INSERT INTO makegood_refunds (id, resolution_id, charge_id, output_index, account_id, provider, model, subscription_credits, wallet_credits, reason, refunded_at)
SELECT d.id, d.resolution_id, d.charge_id, d.output_index, d.account_id, d.provider, d.model, d.subscription_credits, d.wallet_credits, d.reason, d.refunded_at
FROM jsonb_to_recordset($1::jsonb) AS d(id text, resolution_id bigint, charge_id text, output_index bigint, account_id text, provider text, model text, subscription_credits bigint, wallet_credits bigint, reason text, refunded_at timestamptz)
WHERE true
