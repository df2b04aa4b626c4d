-- minimum_version: the oldest version of the tables that a binary may be built for. NULL: none was
-- set.
SELECT CAST(max(version) AS bigint) AS version FROM makegood_minimum_version
