-- relation_kinds: table (r) or view (v), and whether a trigger stands in for writes to balances.
SELECT CASE b.type WHEN 'view' THEN 'v' ELSE 'r' END AS balances_kind,
       (SELECT count(*) FROM sqlite_master t WHERE t.type = 'trigger'
        AND t.tbl_name = 'balances') AS balances_triggers
FROM sqlite_master b
WHERE b.name = 'balances'
