-- erase: erases a portion of evidence, with its owner's rights, and records who had it erased.
-- $1: {account_id or older_than, by, reason, dry_run, table, after_id, rows}, as makegood_erase
-- takes them.
SELECT last_id, answers, events, pass_reports, provider_messages, left_answers, left_events
FROM makegood_erase($1::jsonb)
