-- refused_tried: all since $2 was looked at again; now something is refused after $3, or, where $3
-- is $4, nothing any more. $1: the name it is kept by. $4: now. Not if somebody noted an earlier
-- time meanwhile.
UPDATE makegood_cursors SET position = $3, updated_at = $4 WHERE name = $1 AND position = $2
