-- add_items: inserts the expected outputs of charges.
-- $1: JSON list of {charge_id, output_index, credits, provider_job_id, failed_at}.
INSERT INTO charge_items (charge_id, output_index, credits, provider_job_id, failed_at)
SELECT value ->> 'charge_id', value ->> 'output_index', value ->> 'credits',
       value ->> 'provider_job_id', value ->> 'failed_at'
FROM json_each($1)
