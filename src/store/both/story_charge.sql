-- story_charge: one charge. $1: its id.
SELECT c.id, c.account_id, c.project_id, c.node_id, c.provider, c.model, c.provider_job_id,
       c.charged_at,
       c.subscription_credits, c.wallet_credits, c.cancelled_at
FROM charges c
WHERE c.id = $1
