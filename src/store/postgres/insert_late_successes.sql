-- insert_late_successes: refunded items whose job succeeded after all; once an item, whoever notices it and how often.
-- $1: JSON list of {refund_id, charge_id, output_index, kind, provider, model, provider_job_id, noticed_at, noticed_by, answer_id, stored_output_id}.
-- In the order of their keys, so that no two that notice the same wait for each other in a ring. What is new returns a row.
INSERT INTO makegood_late_successes (refund_id, charge_id, output_index, kind, provider, model, provider_job_id, noticed_at, noticed_by, answer_id, stored_output_id)
SELECT d.refund_id, d.charge_id, d.output_index, d.kind, d.provider, d.model, d.provider_job_id, d.noticed_at, d.noticed_by, d.answer_id, d.stored_output_id
FROM jsonb_to_recordset($1::jsonb) AS d(refund_id text, charge_id text, output_index bigint, kind text, provider text, model text, provider_job_id text, noticed_at timestamptz, noticed_by text, answer_id bigint, stored_output_id text)
WHERE true
ORDER BY d.charge_id, d.output_index
ON CONFLICT (charge_id, output_index) DO NOTHING
RETURNING charge_id, output_index, kind, provider
