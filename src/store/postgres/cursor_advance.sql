-- cursor_advance: a scan has looked up to here; it never moves back. $1: its name. $2: position. $3: now.
INSERT INTO makegood_cursors (name, position, updated_at)
VALUES ($1, $2, $3)
ON CONFLICT (name) DO UPDATE
SET position = greatest(makegood_cursors.position, excluded.position), updated_at = excluded.updated_at
