-- clock: SQLite has one process, whose own clock is used instead. Here so that both dialects have
-- the statement.
SELECT CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER) AS now
