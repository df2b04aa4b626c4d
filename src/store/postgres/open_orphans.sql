-- open_orphans: makes an orphan of each listed item.
-- $1: JSON list of {charge_id, output_index}. $2: now. $3: which scan found them.
-- $4: from the charge to the end of doubt, $5: to the end of the window, $6: what an orphan opened late gets; microseconds.
-- $7: JSON list of {provider, retention_us}: where outputs are dropped early, the question is urgent early (P18).
-- $8: due from then on: a pass claims what was due when it began, so it gives that time.
-- An item that has an orphan already returns no row: another process opened it first, or see reopen_orphans.
INSERT INTO makegood_orphans (charge_id, output_index, provider, provider_job_id, charged_at, opened_at, opened_by,
                              refund_by, window_ends_at, state, due_at, urgent_at)
SELECT x.charge_id, x.output_index, x.provider, x.provider_job_id, x.charged_at, $2::timestamptz, $3::text,
       x.refund_by, x.charged_at + $5 * interval '1 microsecond', 'open', $8::timestamptz,
       least(x.refund_by, x.charged_at + r.retention_us * interval '1 microsecond')
FROM (
    SELECT d.charge_id, d.output_index, c.provider, nullif(coalesce(i.provider_job_id, c.provider_job_id), '') AS provider_job_id,
           c.charged_at,
           greatest(c.charged_at + $4 * interval '1 microsecond',
                    $2::timestamptz + $6 * interval '1 microsecond') AS refund_by
    FROM jsonb_to_recordset($1::jsonb) AS d(charge_id text, output_index bigint)
    CROSS JOIN LATERAL (SELECT p.provider, p.provider_job_id, p.charged_at
                        FROM charges p WHERE p.id = d.charge_id OFFSET 0) AS c
    LEFT JOIN LATERAL (SELECT p.provider_job_id
                       FROM charge_items p
                       WHERE p.charge_id = d.charge_id AND p.output_index = d.output_index OFFSET 0) AS i ON true
) AS x
LEFT JOIN jsonb_to_recordset($7::jsonb) AS r(provider text, retention_us bigint) ON r.provider = x.provider
WHERE true
ON CONFLICT (charge_id, output_index) DO NOTHING
RETURNING id, charge_id, output_index, provider
