-- missing_rights: returns no row: SQLite has no rights besides those of the file.
SELECT '' AS relation, '' AS needed WHERE 0
