-- PostgreSQL needs a function here that locks balances. SQLite has one writer: nothing to do.
SELECT 1;
