-- insert_reversals: a person takes a refund back. Its unique key refuses a second reversal of one refund, should all else fail.
-- $1: JSON list of {id, refund_id, charge_id, output_index, account_id, subscription_credits, wallet_credits, by_whom, reason, reversed_at}.
INSERT INTO makegood_refund_reversals (id, refund_id, charge_id, output_index, account_id, subscription_credits, wallet_credits, by_whom, reason, reversed_at)
SELECT d.id, d.refund_id, d.charge_id, d.output_index, d.account_id, d.subscription_credits, d.wallet_credits, d.by_whom, d.reason, d.reversed_at
FROM jsonb_to_recordset($1::jsonb) AS d(id text, refund_id text, charge_id text, output_index bigint, account_id text, subscription_credits bigint, wallet_credits bigint, by_whom text, reason text, reversed_at timestamptz)
WHERE true
