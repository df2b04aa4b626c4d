-- detection_turn_end: gives up the lease on detection. $1: a time at which a lease has expired.
UPDATE makegood_cursors SET position = $1 WHERE name = 'detecting'
