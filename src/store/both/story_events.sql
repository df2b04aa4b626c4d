-- story_events: everything that happened to the items of one charge, in order. $1: the charge's id.
SELECT id, output_index, at, kind, reason, rule, detail, answer_id, pass_id
FROM makegood_orphan_events
WHERE charge_id = $1
ORDER BY id
