-- detection_turn_end: gives up the turn to scan charges. $1: a time at which a turn has ended.
UPDATE makegood_cursors SET position = $1 WHERE name = 'detecting'
