-- refused_tried: everything since $2 was scanned again. From now on something is rejected after $3,
-- or nothing if $3 is $4. $1: the name of the record. $4: now. It does nothing if an earlier time
-- was recorded meanwhile.
UPDATE makegood_cursors SET position = $3, updated_at = $4 WHERE name = $1 AND position = $2
