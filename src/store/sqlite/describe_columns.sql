-- describe_columns: which of the columns that makegood reads are there. SQLite gives a column no
-- type that holds: what is in it is read instead. $1: JSON list of {relation, name}.
SELECT d.value ->> 'relation' AS relation, d.value ->> 'name' AS name,
       (SELECT count(*) FROM sqlite_master m
        WHERE m.name = d.value ->> 'relation' AND m.type IN ('table', 'view')) AS is_there,
       (SELECT 'any' FROM pragma_table_info(d.value ->> 'relation') c
        WHERE c.name = d.value ->> 'name') AS shown,
       '' AS base
FROM json_each($1) AS d
ORDER BY d.key
