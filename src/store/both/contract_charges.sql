-- contract_charges: whether the relation has the columns that makegood needs, and a row to see what
-- is in them.
SELECT id, account_id, project_id, node_id, provider, model, provider_job_id, charged_at,
       subscription_credits, wallet_credits,
       cancelled_at
FROM charges
LIMIT 1
