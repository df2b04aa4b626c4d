-- late_providers: whose jobs are due to be asked about again after a refund. $1: now. Costs follow
-- the open questions.
SELECT provider, count(*) AS questions
FROM makegood_late_questions
WHERE ended_at IS NULL AND due_at <= $1 AND (leased_until IS NULL OR leased_until <= $1)
GROUP BY provider
ORDER BY provider
