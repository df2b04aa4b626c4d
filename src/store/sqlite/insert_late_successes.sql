-- insert_late_successes: refunded items whose job succeeded after all; once an item, whoever
-- notices it and how often. $1: JSON list of {refund_id, charge_id, output_index, kind, provider,
-- model, provider_job_id, noticed_at, noticed_by, answer_id, stored_output_id}. One writer at a
-- time: what is there already is left out. What is new returns a row.
INSERT INTO makegood_late_successes (refund_id, charge_id, output_index, kind, provider, model,
                                     provider_job_id, noticed_at, noticed_by, answer_id,
                                     stored_output_id)
SELECT d.refund_id, d.charge_id, d.output_index, d.kind, d.provider, d.model, d.provider_job_id,
       d.noticed_at, d.noticed_by, d.answer_id, d.stored_output_id
FROM (SELECT value ->> 'refund_id' AS refund_id, value ->> 'charge_id' AS charge_id,
             value ->> 'output_index' AS output_index, value ->> 'kind' AS kind,
             value ->> 'provider' AS provider, value ->> 'model' AS model,
             value ->> 'provider_job_id' AS provider_job_id, value ->> 'noticed_at' AS noticed_at,
             value ->> 'noticed_by' AS noticed_by, value ->> 'answer_id' AS answer_id,
             value ->> 'stored_output_id' AS stored_output_id
             FROM json_each($1)) AS d
WHERE NOT EXISTS (SELECT 1 FROM makegood_late_successes l WHERE l.charge_id = d.charge_id
                  AND l.output_index = d.output_index)
RETURNING charge_id, output_index, kind, provider
