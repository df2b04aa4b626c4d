-- late_turn: one claim of late questions at a time, so that no job is split. $1: now. The row stays
-- locked until the commit.
INSERT INTO makegood_cursors (name, position, updated_at) VALUES ('late_claim', $1, $1)
ON CONFLICT (name) DO UPDATE SET position = excluded.position, updated_at = excluded.updated_at
