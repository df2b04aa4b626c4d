-- add_charges: inserts charges. $1: JSON list of charges; the keys are the columns.
INSERT INTO charges (id, account_id, project_id, node_id, provider, model, provider_job_id,
                     charged_at, subscription_credits, wallet_credits, cancelled_at)
SELECT value ->> 'id', value ->> 'account_id', value ->> 'project_id', value ->> 'node_id',
       value ->> 'provider', value ->> 'model', value ->> 'provider_job_id', value ->> 'charged_at',
       value ->> 'subscription_credits', value ->> 'wallet_credits', value ->> 'cancelled_at'
FROM json_each($1)
