-- suspect_providers: providers with due suspects (jobs that were in flight in two passes that
-- died). $1: due by this. $2: now. Reads the whole partial index of orphans that were in flight in
-- passes that died, which are few.
SELECT DISTINCT provider
FROM makegood_orphans
WHERE state IN ('open', 'held') AND deaths > 0 AND (deaths > 1 OR leased_until IS NOT NULL)
  AND due_at <= $1 AND (leased_until IS NULL OR leased_until <= $2)
ORDER BY provider
