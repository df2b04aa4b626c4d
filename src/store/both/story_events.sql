-- story_events: everything that happened to the items of one charge, in order, and who had it
-- erased. $1: the charge's id.
SELECT e.id, e.output_index, e.at, e.kind, e.reason, e.rule, e.detail, e.answer_id, e.pass_id,
       e.content_sha256,
       z.erased_at, z.by_whom AS erased_by, z.reason AS erased_for
FROM makegood_orphan_events e
LEFT JOIN makegood_erasures z ON z.id = e.erasure_id
WHERE e.charge_id = $1
ORDER BY e.id
