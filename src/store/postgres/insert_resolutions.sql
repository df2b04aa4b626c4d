-- insert_resolutions: one current resolution an item; a second one breaks the unique index and with it the transaction.
-- $1: JSON list of {charge_id, output_index, kind, reason, rule, resolved_at, decided_by, answer_id, pass_id}.
INSERT INTO makegood_resolutions (charge_id, output_index, kind, reason, rule, resolved_at, decided_by, answer_id, pass_id)
SELECT d.charge_id, d.output_index, d.kind, d.reason, d.rule, d.resolved_at, d.decided_by, d.answer_id, d.pass_id
FROM jsonb_to_recordset($1::jsonb) AS d(charge_id text, output_index bigint, kind text, reason text, rule bigint, resolved_at timestamptz, decided_by text, answer_id bigint, pass_id bigint)
WHERE true
RETURNING id, charge_id, output_index
