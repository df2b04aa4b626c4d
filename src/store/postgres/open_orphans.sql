-- open_orphans: makes an orphan of each listed item.
-- $1: JSON list of {charge_id, output_index}. $2: now. $3: which scan found them.
-- $4: from the charge to the end of doubt, $5: to the end of the window, $6: what an orphan opened late gets; microseconds.
-- $7: JSON list of {provider, retention_us}: where outputs are dropped early, the question is urgent early (P18).
-- An item that has an orphan already returns no row: somebody else was faster, or see reopen_orphans.
INSERT INTO makegood_orphans (charge_id, output_index, provider, provider_job_id, charged_at, opened_at, opened_by,
                              refund_by, window_ends_at, state, due_at, urgent_at)
SELECT d.charge_id, d.output_index, c.provider, nullif(coalesce(i.provider_job_id, c.provider_job_id), ''), c.charged_at,
       $2::timestamptz, $3::text,
       greatest(c.charged_at + $4 * interval '1 microsecond', $2::timestamptz + $6 * interval '1 microsecond'),
       c.charged_at + $5 * interval '1 microsecond', 'open', $2::timestamptz,
       least(greatest(c.charged_at + $4 * interval '1 microsecond', $2::timestamptz + $6 * interval '1 microsecond'), coalesce(c.charged_at + r.retention_us * interval '1 microsecond', greatest(c.charged_at + $4 * interval '1 microsecond', $2::timestamptz + $6 * interval '1 microsecond')))
FROM jsonb_to_recordset($1::jsonb) AS d(charge_id text, output_index bigint)
JOIN charges c ON c.id = d.charge_id
LEFT JOIN charge_items i ON i.charge_id = d.charge_id AND i.output_index = d.output_index
LEFT JOIN jsonb_to_recordset($7::jsonb) AS r(provider text, retention_us bigint) ON r.provider = c.provider
WHERE true
ON CONFLICT (charge_id, output_index) DO NOTHING
RETURNING id, charge_id, output_index
