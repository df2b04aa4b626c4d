-- insert_events: what happened to orphans, for people (P21, P23). $1: JSON list of {orphan_id,
-- charge_id, output_index, at, kind, reason, rule, detail, answer_id, pass_id, lease_token,
-- content_sha256}.
INSERT INTO makegood_orphan_events (orphan_id, charge_id, output_index, at, kind, reason, rule,
                                    detail, answer_id, pass_id, lease_token, content_sha256)
SELECT d.orphan_id, d.charge_id, d.output_index, d.at, d.kind, d.reason, d.rule, d.detail,
       d.answer_id, d.pass_id, d.lease_token, d.content_sha256
FROM (SELECT value ->> 'orphan_id' AS orphan_id, value ->> 'charge_id' AS charge_id,
             value ->> 'output_index' AS output_index, value ->> 'at' AS at,
             value ->> 'kind' AS kind, value ->> 'reason' AS reason, value ->> 'rule' AS rule,
             value ->> 'detail' AS detail, value ->> 'answer_id' AS answer_id,
             value ->> 'pass_id' AS pass_id, value ->> 'lease_token' AS lease_token,
             value ->> 'content_sha256' AS content_sha256
             FROM json_each($1)) AS d
WHERE true
