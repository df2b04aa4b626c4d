-- describe_writes: which writes of a pass the platform's relations take. Over a view a write is
-- taken by an INSTEAD OF trigger, by a rule, or by the view itself where it is simple enough.
-- invokers: triggers whose functions run with the rights of the passes' role.
WITH written(relation, event, trigger_bit, updatable_bit, columns) AS (VALUES
    ('balances', 'UPDATE', 16, 4, ARRAY['credits']),
    ('ledger_entries', 'INSERT', 4, 8, ARRAY['id', 'account_id', 'bucket', 'credits', 'kind', 'charge_id',
                                             'output_index', 'refund_id', 'posted_at']),
    ('stored_outputs', 'INSERT', 4, 8, ARRAY['id', 'charge_id', 'output_index', 'provider', 'provider_job_id',
                                             'provider_output_index', 'project_id', 'node_id', 'uri', 'content_type',
                                             'size_bytes', 'sha256', 'stored_at']),
    ('stored_outputs', 'UPDATE', 16, 4, ARRAY['charge_id', 'output_index', 'project_id', 'node_id'])
)
SELECT w.relation, w.event, c.relkind::text AS kind,
       count(*) FILTER (WHERE t.tgtype & 64 <> 0) AS instead,
       string_agg(t.tgname, ', ') FILTER (WHERE t.tgenabled IN ('O', 'A') AND NOT p.prosecdef) AS invokers,
       (SELECT count(*) FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type <> '1' AND r.is_instead) AS rules,
       (pg_relation_is_updatable(c.oid, false) & w.updatable_bit <> 0)::int::bigint AS takes,
       (SELECT string_agg(a.attname, ', ' ORDER BY a.attnum) FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attname = ANY (w.columns) AND NOT a.attisdropped
          AND (a.attgenerated <> '' OR a.attidentity = 'a'
               OR c.relkind = 'v' AND NOT pg_column_is_updatable(c.oid, a.attnum, false))) AS fixed
FROM written w
JOIN pg_class c ON c.oid = to_regclass(w.relation)
LEFT JOIN pg_trigger t ON t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgtype & w.trigger_bit <> 0
LEFT JOIN pg_proc p ON p.oid = t.tgfoid
GROUP BY w.relation, w.event, w.updatable_bit, w.columns, c.oid, c.relkind
ORDER BY w.relation, w.event
