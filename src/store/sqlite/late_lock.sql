-- late_lock: the token each of the listed late questions has now; nobody else writes meanwhile.
-- $1: JSON list of orphan ids. What has ended, or is not leased any more, returns no row.
SELECT orphan_id, lease_token
FROM makegood_late_questions
WHERE orphan_id IN (SELECT value FROM json_each($1)) AND ended_at IS NULL
  AND leased_until IS NOT NULL
