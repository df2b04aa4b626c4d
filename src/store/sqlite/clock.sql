-- clock: SQLite has one process, whose own clock is asked instead; this stands here so that both
-- have the statement.
SELECT CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER) AS now
