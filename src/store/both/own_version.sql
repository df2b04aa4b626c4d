-- own_version: the newest of makegood's own migrations that succeeded.
SELECT CAST(max(version) AS bigint) AS version FROM makegood_migrations WHERE success
