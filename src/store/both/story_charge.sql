-- story_charge: one charge with the kind of account that paid. $1: its id.
SELECT c.id, c.account_id, a.kind AS account_kind, c.project_id, c.node_id, c.provider, c.model, c.provider_job_id, c.charged_at,
       c.subscription_credits, c.wallet_credits, c.cancelled_at
FROM charges c
LEFT JOIN accounts a ON a.id = c.account_id
WHERE c.id = $1
