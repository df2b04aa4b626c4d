-- missing_rights: what a pass needs and may not do. SQLite knows no rights but those of the file:
-- no row.
SELECT '' AS relation, '' AS needed WHERE 0
