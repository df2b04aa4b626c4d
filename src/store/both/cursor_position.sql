-- cursor_position: how far a scan has looked. $1: its name. No row: never.
SELECT position FROM makegood_cursors WHERE name = $1
