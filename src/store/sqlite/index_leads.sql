-- index_leads: what each index begins with. How many rows its table has is not asked.
SELECT 'main' AS schema, t.name AS relation, l.name AS "index", k.name AS leads, 0 AS rows
FROM sqlite_master t, pragma_index_list(t.name) l
JOIN pragma_index_info(l.name) k ON k.seqno = 0
WHERE t.type = 'table'
