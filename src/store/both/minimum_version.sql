-- minimum_version: the oldest version of the tables that a binary may have been made for. NULL:
-- none was set.
SELECT CAST(max(version) AS bigint) AS version FROM makegood_minimum_version
