-- contract_charge_items: whether the relation has the columns that makegood needs, and a row to see
-- what is in them.
SELECT charge_id, output_index, credits, provider_job_id, provider_output_index, failed_at
FROM charge_items LIMIT 1
