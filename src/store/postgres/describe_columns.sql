-- describe_columns: the types of the columns that makegood reads of the platform's relations,
-- without reading a row. $1: JSON list of {relation, name}. One row for each: whether there is such
-- a relation and column, its type as SQL names it, and the type beneath all domains.
WITH RECURSIVE wanted AS (
    SELECT d.value ->> 'relation' AS relation, d.value ->> 'name' AS name, d.nth
    FROM jsonb_array_elements($1::jsonb) WITH ORDINALITY AS d(value, nth)
), described AS (
    SELECT w.relation, w.name, w.nth, c.oid AS class, a.atttypid AS type, a.atttypmod AS modifier, a.atttypid AS base
    FROM wanted w
    LEFT JOIN pg_class c ON c.oid = to_regclass(w.relation)
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = w.name AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT d.relation, d.name, d.nth, d.class, d.type, d.modifier, t.typbasetype
    FROM described d JOIN pg_type t ON t.oid = d.base AND t.typtype = 'd'
)
SELECT d.relation, d.name, (d.class IS NOT NULL)::int::bigint AS is_there,
       format_type(d.type, d.modifier) AS shown, format_type(d.base, NULL) AS base
FROM described d
WHERE (SELECT count(*) FROM pg_type t WHERE t.oid = d.base AND t.typtype = 'd') = 0
ORDER BY d.nth
