-- cursors: all saved positions, a dozen rows.
SELECT name, position, until, updated_at FROM makegood_cursors
