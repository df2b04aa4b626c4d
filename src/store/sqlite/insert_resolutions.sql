-- insert_resolutions: one current resolution an item; a second one breaks the unique index and with
-- it the transaction. $1: JSON list of {charge_id, output_index, kind, reason, rule, resolved_at,
-- decided_by, answer_id, pass_id}.
INSERT INTO makegood_resolutions (charge_id, output_index, kind, reason, rule, resolved_at,
                                  decided_by, answer_id, pass_id)
SELECT d.charge_id, d.output_index, d.kind, d.reason, d.rule, d.resolved_at, d.decided_by,
       d.answer_id, d.pass_id
FROM (SELECT value ->> 'charge_id' AS charge_id, value ->> 'output_index' AS output_index,
             value ->> 'kind' AS kind, value ->> 'reason' AS reason, value ->> 'rule' AS rule,
             value ->> 'resolved_at' AS resolved_at, value ->> 'decided_by' AS decided_by,
             value ->> 'answer_id' AS answer_id, value ->> 'pass_id' AS pass_id
             FROM json_each($1)) AS d
WHERE true
RETURNING id, charge_id, output_index
