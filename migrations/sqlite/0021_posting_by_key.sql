-- On PostgreSQL a function is made anew, which finds by key what it adds to a charge. SQLite has
-- none: nothing to do.
SELECT 1;
