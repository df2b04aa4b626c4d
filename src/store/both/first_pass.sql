-- first_pass: when the first pass of this installation began. No row: there was none yet.
SELECT started_at FROM makegood_passes ORDER BY id LIMIT 1
