-- What earlier passes have left in makegood's own tables, for the rows of rows.sql.
INSERT INTO makegood_passes (mode, started_at, finished_at, outcome, report)
SELECT 'run', t, t + interval '10 seconds', 'done', repeat('x', 1000)
FROM generate_series(timestamptz '$now' - interval '20 days',
                     timestamptz '$now' - interval '10 minutes', interval '5 minutes') t;
INSERT INTO makegood_charges
SELECT id, account::text, 4, 6, 0, CASE kind WHEN 'refunded' THEN 6 ELSE 0 END
FROM seed.charges WHERE kind IN ('refunded', 'recovered') ORDER BY charged_at;
INSERT INTO makegood_answers (provider, provider_job_id, asked_at, verdict, offered, request,
                              http_status, excerpt)
SELECT 'replicate', job, charged_at + interval '20 minutes', CASE kind WHEN 'recovered'
    THEN 'succeeded' WHEN 'wait' THEN 'running' ELSE 'failed' END,
       0, 'GET http://127.0.0.1/v1/predictions/' || job, 200,
       '{"status":"…","error":"' || repeat('e', 100) || '"}'
FROM seed.charges WHERE kind IN ('refunded', 'recovered', 'wait') ORDER BY charged_at;
-- None of them is due.
ALTER TABLE makegood_orphans ALTER queued SET DEFAULT false;
INSERT INTO makegood_orphans (charge_id, output_index, provider, provider_job_id, charged_at,
                              opened_at, opened_by, refund_by, window_ends_at,
                              state, reason, due_at, urgent_at, lease_token, questions,
                              first_asked_at, last_asked_at, waits, resolved_at)
SELECT id, 0, 'replicate', job, charged_at, charged_at + interval '16 minutes', 'grace',
       charged_at + interval '22 hours',
       charged_at + interval '24 hours',
       CASE WHEN kind <> 'wait' THEN kind WHEN i % 3 = 0 THEN 'held' ELSE 'open' END,
       CASE kind WHEN 'refunded' THEN CASE i % 16 WHEN 0 THEN 'unconfirmed'
           ELSE 'provider_error' END WHEN 'recovered' THEN 'output_available'
                 ELSE CASE i % 3 WHEN 0 THEN 'brake' ELSE 'still_running' END END,
       CASE kind WHEN 'wait' THEN timestamptz '$now' + interval '55 minutes'
           ELSE charged_at + interval '20 minutes' END,
       charged_at + interval '22 hours', 1, 1, charged_at + interval '20 minutes',
       charged_at + interval '20 minutes', 0,
       CASE WHEN kind = 'refunded' THEN charged_at + interval '23 hours' WHEN kind = 'recovered'
           THEN charged_at + interval '20 minutes' END
FROM seed.charges WHERE kind IN ('refunded', 'recovered', 'wait') ORDER BY charged_at;
ALTER TABLE makegood_orphans ALTER queued SET DEFAULT true;
INSERT INTO makegood_orphan_events (orphan_id, charge_id, output_index, at, kind)
SELECT id, charge_id, 0, opened_at, 'opened' FROM makegood_orphans ORDER BY id;
INSERT INTO makegood_resolutions (charge_id, output_index, kind, reason, rule, resolved_at,
                                  decided_by, answer_id, pass_id)
SELECT o.charge_id, 0, CASE o.state WHEN 'refunded' THEN 'refund' ELSE 'recover' END, o.reason, 6,
       o.resolved_at, 'makegood', a.id, 1
FROM makegood_orphans o JOIN makegood_answers a ON a.provider_job_id = o.provider_job_id
WHERE o.state IN ('refunded', 'recovered')
ORDER BY o.id;
INSERT INTO makegood_orphan_events (orphan_id, charge_id, output_index, at, kind, reason, rule,
                                    answer_id, pass_id, lease_token)
SELECT o.id, r.charge_id, 0, r.resolved_at, r.kind, r.reason, 6, r.answer_id, 1, 1
FROM makegood_resolutions r JOIN makegood_orphans o ON o.charge_id = r.charge_id ORDER BY r.id;
INSERT INTO makegood_refunds
SELECT 'makegood:' || r.charge_id || '/0', r.id, r.charge_id, 0, m.account_id, 'replicate',
       'acme/still-life', 0, 6, r.reason, r.resolved_at
FROM makegood_resolutions r JOIN makegood_charges m ON m.charge_id = r.charge_id
WHERE r.kind = 'refund'
ORDER BY r.id;
INSERT INTO makegood_recoveries (resolution_id, charge_id, output_index, kind, provider,
                                 stored_output_id, uri, recovered_at)
SELECT id, charge_id, 0, 'recover', 'replicate', 'makegood:' || charge_id || '/0:1',
       's3://bucket/' || id, resolved_at
FROM makegood_resolutions WHERE kind = 'recover' ORDER BY id;
-- Of the refunds without proof all have been asked about again, but for the newest.
INSERT INTO makegood_late_questions (orphan_id, charge_id, output_index, provider, provider_job_id,
                                     refunded_at, due_at, asked, ended_at, ended_because)
SELECT o.id, o.charge_id, 0, 'replicate', o.provider_job_id, o.resolved_at,
       o.resolved_at + interval '6 hours', 1,
       CASE WHEN o.resolved_at < timestamptz '$now' - interval '30 hours'
           THEN o.resolved_at + interval '24 hours' END,
       CASE WHEN o.resolved_at < timestamptz '$now' - interval '30 hours' THEN 'asked_enough' END
FROM makegood_orphans o WHERE o.state = 'refunded' AND o.reason = 'unconfirmed' ORDER BY o.id;
INSERT INTO makegood_late_successes (charge_id, output_index, refund_id, kind, provider, model,
                                     provider_job_id, noticed_at, noticed_by, answer_id)
SELECT q.charge_id, 0, 'makegood:' || q.charge_id || '/0', 'never_stored', 'replicate',
       'acme/still-life', q.provider_job_id, q.ended_at, 'question', r.answer_id
FROM makegood_late_questions q JOIN makegood_resolutions r ON r.charge_id = q.charge_id
WHERE q.ended_at IS NOT NULL AND q.orphan_id % 5 = 0;
-- Left by copies that were killed, removed once, and to be removed again a day after they were
-- begun.
INSERT INTO makegood_uploads (orphan_id, lease_token, nth, charge_id, output_index, storage, path,
                              uri, begun_at, tried_at, swept_at)
SELECT o.id, 0, 1, o.charge_id, 0, 'file://', 'a/' || o.id, 'file:///a/' || o.id,
       timestamptz '$now' - interval '2 hours',
       timestamptz '$now' - interval '1 hour', timestamptz '$now' - interval '1 hour'
FROM makegood_orphans o WHERE o.state = 'recovered' ORDER BY o.id LIMIT 300;
