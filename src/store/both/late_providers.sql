-- late_providers: providers with late questions that are due. $1: now. The cost follows the open
-- questions.
SELECT provider, count(*) AS questions
FROM makegood_late_questions
WHERE ended_at IS NULL AND due_at <= $1 AND (leased_until IS NULL OR leased_until <= $1)
GROUP BY provider
ORDER BY provider
