-- last_pass: the newest pass that ended, for the status page.
SELECT id, mode, started_at, finished_at, outcome, report
FROM makegood_passes
WHERE finished_at IS NOT NULL
ORDER BY id DESC LIMIT 1
