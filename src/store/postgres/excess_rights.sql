-- excess_rights: what this role may do and a pass does not need, where it could raise balances or
-- erase evidence. No row: it can give back nothing but what makegood_post_refunds allows.
SELECT n.relation, n.excess
FROM (VALUES ('balances', 'UPDATE'), ('balances', 'INSERT'), ('ledger_entries', 'INSERT'),
             ('makegood_refunds', 'INSERT')) AS n(relation, excess)
WHERE CASE WHEN n.excess = 'UPDATE' THEN has_any_column_privilege(n.relation, n.excess)
           ELSE has_table_privilege(n.relation, n.excess) END
UNION ALL
SELECT 'makegood_erase(jsonb)', 'EXECUTE'
WHERE has_function_privilege('makegood_erase(jsonb)', 'EXECUTE')
ORDER BY 1, 2
