-- story_orphans: the orphans of one charge with their states. $1: the charge's id.
SELECT output_index, state, reason, charged_at, opened_at, opened_by, refund_by, window_ends_at,
       due_at, leased_until,
       questions, first_asked_at, last_asked_at, waits, resolved_at
FROM makegood_orphans
WHERE charge_id = $1
ORDER BY output_index
