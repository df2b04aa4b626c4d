-- On PostgreSQL foreign keys among append-only tables go and functions are made anew, so that a row
-- costs less. SQLite keeps its foreign keys, which the simulations check, and has no functions:
-- nothing to do.
SELECT 1;
