-- relation_kinds: table (r, p) or view (v), and whether a trigger stands in for writes to balances.
SELECT b.relkind::text AS balances_kind,
       (SELECT count(*) FROM pg_trigger t WHERE t.tgrelid = b.oid AND (t.tgtype & 64) <> 0) AS balances_triggers
FROM pg_class b
WHERE b.oid = to_regclass('balances')
