-- insert_reversals: records that a person takes a refund back. Its unique key rejects a second
-- reversal of one refund. $1: JSON list of {id, refund_id, charge_id, output_index, account_id,
-- subscription_credits, wallet_credits, by_whom, reason, reversed_at}.
INSERT INTO makegood_refund_reversals (id, refund_id, charge_id, output_index, account_id,
                                       subscription_credits, wallet_credits, by_whom, reason,
                                       reversed_at)
SELECT value ->> 'id', value ->> 'refund_id', value ->> 'charge_id', value ->> 'output_index',
       value ->> 'account_id',
       value ->> 'subscription_credits', value ->> 'wallet_credits', value ->> 'by_whom',
       value ->> 'reason', value ->> 'reversed_at'
FROM json_each($1)
WHERE true
