-- row_security: tables whose policies apply when this role reads the platform's relations, also
-- beneath views, which are read with the rights of their owners. sees: `nothing` where no policy
-- lets it see a row, `some` where a policy depends on the row. Policies that let it see all give no
-- row here. seen: rows of the relation that this role sees, up to 1000.
WITH RECURSIVE under(relation, class, role) AS (
    SELECT w.relation, to_regclass(w.relation)::oid, (SELECT r.oid FROM pg_roles r WHERE r.rolname = current_user)
    FROM (VALUES ('charges'), ('charge_items'), ('stored_outputs'), ('balances'), ('ledger_entries')) AS w(relation)
    UNION
    SELECT u.relation, d.refobjid,
           CASE WHEN v.reloptions && ARRAY['security_invoker=true', 'security_invoker=on', 'security_invoker=1']
                THEN u.role ELSE v.relowner END
    FROM under u
    JOIN pg_class v ON v.oid = u.class AND v.relkind = 'v'
    JOIN pg_rewrite w ON w.ev_class = v.oid
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
                    AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> v.oid
), policies AS (
    SELECT DISTINCT u.relation, t.oid AS class, coalesce(p.permits, false) AS permits, coalesce(p.all_rows, false) AS all_rows
    FROM under u
    JOIN pg_class t ON t.oid = u.class AND t.relrowsecurity
    JOIN pg_roles o ON o.oid = u.role AND NOT o.rolsuper AND NOT o.rolbypassrls
    LEFT JOIN LATERAL (
        SELECT bool_or(p.polpermissive) AS permits,
               bool_or(p.polpermissive AND pg_get_expr(p.polqual, p.polrelid) = 'true')
               AND NOT bool_or(NOT p.polpermissive AND pg_get_expr(p.polqual, p.polrelid) IS DISTINCT FROM 'true') AS all_rows
        FROM pg_policy p
        WHERE p.polrelid = t.oid AND p.polcmd IN ('r', '*')
          AND EXISTS (SELECT 1 FROM unnest(p.polroles) AS r(role)
                      WHERE r.role = 0 OR pg_has_role(u.role, r.role, 'MEMBER'))) AS p ON true
    WHERE t.relforcerowsecurity OR NOT pg_has_role(u.role, t.relowner, 'USAGE')
)
SELECT p.relation, p.class::regclass::text AS behind, CASE WHEN p.permits THEN 'some' ELSE 'nothing' END AS sees,
       CASE p.relation
           WHEN 'charges' THEN (SELECT count(*) FROM (SELECT FROM charges LIMIT 1000) AS r)
           WHEN 'charge_items' THEN (SELECT count(*) FROM (SELECT FROM charge_items LIMIT 1000) AS r)
           WHEN 'stored_outputs' THEN (SELECT count(*) FROM (SELECT FROM stored_outputs LIMIT 1000) AS r)
           WHEN 'balances' THEN (SELECT count(*) FROM (SELECT FROM balances LIMIT 1000) AS r)
           WHEN 'ledger_entries' THEN (SELECT count(*) FROM (SELECT FROM ledger_entries LIMIT 1000) AS r)
       END AS seen
FROM policies p
WHERE NOT p.all_rows
ORDER BY 1, 2
