-- relation_kinds: tables (r, p) or views (v), whether a trigger stands in for writes to balances, and whether charges can be
-- looked at by time.
SELECT b.relkind::text AS balances_kind,
       (SELECT count(*) FROM pg_trigger t WHERE t.tgrelid = b.oid AND (t.tgtype & 64) <> 0) AS balances_triggers,
       c.relkind::text AS charges_kind,
       (SELECT count(*) FROM pg_index x JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]
        WHERE x.indrelid = c.oid AND x.indisvalid AND a.attname = 'charged_at') AS charges_by_time
FROM pg_class b, pg_class c
WHERE b.oid = to_regclass('balances') AND c.oid = to_regclass('charges')
