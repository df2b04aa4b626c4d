-- settle_orphans: what became of each orphan, and its lease ends. $1: JSON list of {orphan_id,
-- state, reason, due_at, expires_at, asked, asked_at, waited, provider, provider_job_id,
-- resolved_at, held_account, unasked}. asked 1: a question was answered at asked_at, or could not
-- be. waited 1: the next wait is longer. unasked 1: a suspect that was not asked stays one.
-- expires_at: when the provider drops the output, if known: it moves the orphan forward in the
-- queue (P18).
UPDATE makegood_orphans AS o
SET state = d.state, reason = d.reason, resolved_at = d.resolved_at, leased_until = NULL,
    queued = false,
    alone_since = NULL, deaths = CASE WHEN d.unasked = 1 THEN o.deaths ELSE 0 END,
    due_at = coalesce(d.due_at, o.due_at),
    urgent_at = CASE WHEN d.expires_at IS NULL THEN o.urgent_at
        ELSE min(o.refund_by, d.expires_at) END,
    questions = o.questions + d.asked,
    first_asked_at = CASE WHEN d.asked = 1 THEN coalesce(o.first_asked_at, d.asked_at)
        ELSE o.first_asked_at END,
    last_asked_at = CASE WHEN d.asked = 1 THEN d.asked_at ELSE o.last_asked_at END,
    waits = CASE WHEN d.waited = 1 THEN o.waits + 1 ELSE o.waits END,
    provider = d.provider, provider_job_id = d.provider_job_id, held_account = d.held_account
FROM (SELECT value ->> 'orphan_id' AS orphan_id, value ->> 'state' AS state,
             value ->> 'reason' AS reason, value ->> 'due_at' AS due_at,
             value ->> 'expires_at' AS expires_at, value ->> 'asked' AS asked,
             value ->> 'asked_at' AS asked_at, value ->> 'waited' AS waited,
             value ->> 'provider' AS provider, value ->> 'provider_job_id' AS provider_job_id,
             value ->> 'resolved_at' AS resolved_at, value ->> 'held_account' AS held_account,
             value ->> 'unasked' AS unasked
             FROM json_each($1)) AS d
WHERE o.id = d.orphan_id
