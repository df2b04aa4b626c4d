-- cursor_position: how far a scan has looked, and when that was written. $1: its name. No row: never.
SELECT position, updated_at FROM makegood_cursors WHERE name = $1
