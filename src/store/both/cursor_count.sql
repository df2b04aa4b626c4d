-- cursor_count: how many charges lie after a scan's position and up to $2. $1: the scan's name. $3:
-- the number.
UPDATE makegood_cursors SET until = $2, charges = $3 WHERE name = $1
