-- On PostgreSQL views and functions are made anew here, so that no other role can put its own
-- operators into them. SQLite knows no roles: nothing to do.
SELECT 1;
