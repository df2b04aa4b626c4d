-- open_schemas: schemas on the search path in which roles other than their owner may create
-- objects. A function there could be run with the rights of whoever works with this path. `PUBLIC`
-- is everybody.
SELECT n.nspname::text AS schema,
       string_agg(CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END, ', ' ORDER BY a.grantee) AS roles
FROM pg_namespace n
CROSS JOIN LATERAL aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) AS a
WHERE n.nspname = ANY (current_schemas(false)) AND a.privilege_type = 'CREATE' AND a.grantee <> n.nspowner
  AND NOT EXISTS (SELECT 1 FROM pg_roles r WHERE r.oid = a.grantee AND r.rolsuper)
GROUP BY n.nspname
ORDER BY n.nspname
