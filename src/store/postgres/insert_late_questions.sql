-- insert_late_questions: refunds without proof, to be asked about again. In settle's transaction, one row an item.
-- $1: JSON list of {orphan_id, charge_id, output_index, provider, provider_job_id, refunded_at, due_at}.
INSERT INTO makegood_late_questions (orphan_id, charge_id, output_index, provider, provider_job_id, refunded_at, due_at)
SELECT d.orphan_id, d.charge_id, d.output_index, d.provider, d.provider_job_id, d.refunded_at, d.due_at
FROM jsonb_to_recordset($1::jsonb) AS d(orphan_id bigint, charge_id text, output_index bigint, provider text, provider_job_id text, refunded_at timestamptz, due_at timestamptz)
WHERE true
