-- open_orphans: makes an orphan of each listed item. $1: JSON list of {charge_id, output_index}.
-- $2: now. $3: which scan found them. $4: from the charge to the end of doubt, $5: to the end of
-- the window, $6: what an orphan opened late gets; microseconds. $8: due from then on: a pass
-- claims what was due when it began, so it gives that time. $7: JSON list of {provider,
-- retention_us}: where outputs are dropped early, the question is urgent early (P18). An item that
-- has an orphan already returns no row: somebody else was faster, or see reopen_orphans.
INSERT INTO makegood_orphans (charge_id, output_index, provider, provider_job_id, charged_at,
                              opened_at, opened_by,
                              refund_by, window_ends_at, state, due_at, urgent_at)
SELECT d.charge_id, d.output_index, c.provider,
       nullif(coalesce(i.provider_job_id, c.provider_job_id), ''), c.charged_at,
       $2, $3,
       max(c.charged_at + $4, $2 + $6),
       c.charged_at + $5, 'open', $8,
       min(max(c.charged_at + $4, $2 + $6), coalesce(c.charged_at + r.retention_us,
                                                     max(c.charged_at + $4, $2 + $6)))
FROM (SELECT value ->> 'charge_id' AS charge_id, value ->> 'output_index' AS output_index
      FROM json_each($1)) AS d
JOIN charges c ON c.id = d.charge_id
LEFT JOIN charge_items i ON i.charge_id = d.charge_id AND i.output_index = d.output_index
LEFT JOIN (SELECT value ->> 'provider' AS provider, value ->> 'retention_us' AS retention_us
           FROM json_each($7)) AS r ON r.provider = c.provider
WHERE true
ON CONFLICT (charge_id, output_index) DO NOTHING
RETURNING id, charge_id, output_index, provider
