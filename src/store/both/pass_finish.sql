-- pass_finish: records the end of a pass. $1: its id. $2: now. $3: done, failed or stopped. $4: its
-- report as JSON. $5: the report's SHA-256 (PostgreSQL computes its own).
UPDATE makegood_passes SET finished_at = $2, outcome = $3, report = $4, content_sha256 = $5
WHERE id = $1
