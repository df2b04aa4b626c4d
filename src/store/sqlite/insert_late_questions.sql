-- insert_late_questions: refunds without proof, to be asked about again. In settle's transaction,
-- one row an item. $1: JSON list of {orphan_id, charge_id, output_index, provider, provider_job_id,
-- refunded_at, due_at}.
INSERT INTO makegood_late_questions (orphan_id, charge_id, output_index, provider, provider_job_id,
                                     refunded_at, due_at)
SELECT value ->> 'orphan_id', value ->> 'charge_id', value ->> 'output_index', value ->> 'provider',
       value ->> 'provider_job_id', value ->> 'refunded_at', value ->> 'due_at'
FROM json_each($1)
WHERE true
