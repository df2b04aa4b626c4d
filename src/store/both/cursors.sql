-- cursors: all saved positions, a dozen rows.
SELECT name, position, until, charges, updated_at FROM makegood_cursors
