-- index_leads: the first columns of each index. The number of rows of its table is not needed.
SELECT 'main' AS schema, t.name AS relation, l.name AS "index", k.name AS leads, 0 AS rows
FROM sqlite_master t, pragma_index_list(t.name) l
JOIN pragma_index_info(l.name) k ON k.seqno = 0
WHERE t.type = 'table'
