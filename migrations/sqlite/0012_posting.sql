-- PostgreSQL posts refunds in a function of the owner's, so that the passes' role needs no right to
-- raise a balance. SQLite knows no roles: nothing to do.
SELECT 1;
