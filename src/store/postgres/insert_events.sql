-- insert_events: what happened to orphans, for people (P21, P23).
-- $1: JSON list of {orphan_id, charge_id, output_index, at, kind, reason, rule, detail, answer_id, pass_id, lease_token}.
INSERT INTO makegood_orphan_events (orphan_id, charge_id, output_index, at, kind, reason, rule, detail, answer_id, pass_id, lease_token)
SELECT d.orphan_id, d.charge_id, d.output_index, d.at, d.kind, d.reason, d.rule, d.detail, d.answer_id, d.pass_id, d.lease_token
FROM jsonb_to_recordset($1::jsonb) AS d(orphan_id bigint, charge_id text, output_index bigint, at timestamptz, kind text, reason text, rule bigint, detail text, answer_id bigint, pass_id bigint, lease_token bigint)
WHERE true
