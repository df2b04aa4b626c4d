-- relation_kinds: tables (r) or views (v), whether a trigger stands in for writes to balances, and whether charges can be
-- looked at by time.
SELECT CASE b.type WHEN 'view' THEN 'v' ELSE 'r' END AS balances_kind,
       (SELECT count(*) FROM sqlite_master t WHERE t.type = 'trigger' AND t.tbl_name = 'balances') AS balances_triggers,
       CASE c.type WHEN 'view' THEN 'v' ELSE 'r' END AS charges_kind,
       (SELECT count(*) FROM pragma_index_list('charges') l JOIN pragma_index_info(l.name) k ON k.seqno = 0
        WHERE k.name = 'charged_at') AS charges_by_time
FROM sqlite_master b, sqlite_master c
WHERE b.name = 'balances' AND c.name = 'charges'
