-- settle_orphans: what became of each orphan, and its lease ends. $1: JSON list of {orphan_id,
-- state, reason, due_at, expires_at, asked, asked_at, waited, provider, provider_job_id,
-- resolved_at, held_account, unasked}. asked 1: a question was answered at asked_at, or could not
-- be. waited 1: the next wait is longer. unasked 1: a suspect that was not asked stays one.
-- expires_at: when the provider drops the output, if known: it moves the orphan forward in the
-- queue (P18). The list becomes an object once, in which each orphan finds its row by key: joined
-- with the list, each orphan of a batch is compared with each row.
UPDATE makegood_orphans o
SET (state, reason, resolved_at, leased_until, queued, alone_since, deaths, due_at, urgent_at, questions,
     first_asked_at, last_asked_at, waits, provider, provider_job_id, held_account) = (
    SELECT d.state, d.reason, d.resolved_at, NULL::timestamptz, false, NULL::timestamptz,
           CASE WHEN d.unasked = 1 THEN o.deaths ELSE 0 END,
           coalesce(d.due_at, o.due_at),
           CASE WHEN d.expires_at IS NULL THEN o.urgent_at ELSE least(o.refund_by, d.expires_at) END,
           o.questions + d.asked,
           CASE WHEN d.asked = 1 THEN coalesce(o.first_asked_at, d.asked_at) ELSE o.first_asked_at END,
           CASE WHEN d.asked = 1 THEN d.asked_at ELSE o.last_asked_at END,
           CASE WHEN d.waited = 1 THEN o.waits + 1 ELSE o.waits END,
           d.provider, d.provider_job_id, d.held_account
    FROM jsonb_to_record((SELECT jsonb_object_agg(v ->> 'orphan_id', v) FROM jsonb_array_elements($1::jsonb) AS v)
                         -> o.id::text)
         AS d(state text, reason text, due_at timestamptz, expires_at timestamptz, asked bigint, asked_at timestamptz,
              waited bigint, provider text, provider_job_id text, resolved_at timestamptz, held_account text, unasked bigint)
)
WHERE o.id = ANY (ARRAY(SELECT (v ->> 'orphan_id')::bigint FROM jsonb_array_elements($1::jsonb) AS v))
