-- When it was last found out whether refunds can be posted, by which version, and what came of it:
-- passes that are started every minute check once an hour. SQLite tries a refund in a transaction
-- that is rolled back, and needs no function for it.

CREATE TABLE makegood_checks (
    name       TEXT PRIMARY KEY,
    checked_at INTEGER,
    version    TEXT,
    result     TEXT NOT NULL DEFAULT 'untried' CHECK (result IN ('ok', 'cannot_post', 'untried')),
    detail     TEXT
) STRICT;
INSERT INTO makegood_checks (name) VALUES ('posting');
