-- review_unresolved_items: each open or held item whose window ends by $1, oldest first. $2: at
-- most this many.
SELECT o.charge_id, o.output_index, c.account_id, o.provider, c.model, o.state,
       coalesce(o.reason, 'not_asked_yet') AS reason,
       o.charged_at, o.window_ends_at, o.questions, o.due_at, i.credits
FROM makegood_orphans o
LEFT JOIN charges c ON c.id = o.charge_id
LEFT JOIN charge_items i ON i.charge_id = o.charge_id AND i.output_index = o.output_index
WHERE o.state IN ('open', 'held') AND o.window_ends_at <= $1
ORDER BY o.window_ends_at, o.charge_id, o.output_index
LIMIT $2
