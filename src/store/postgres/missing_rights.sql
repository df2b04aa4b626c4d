-- missing_rights: what a pass needs and this role may not do. No row: it may do all of it.
SELECT n.relation || CASE WHEN n.columns = '' THEN '' ELSE ' (' || n.columns || ')' END AS relation, n.needed
FROM (VALUES
    ('accounts', '', 'SELECT'), ('charges', '', 'SELECT'), ('charge_items', '', 'SELECT'),
    ('stored_outputs', '', 'SELECT'), ('stored_outputs', '', 'INSERT'),
    ('stored_outputs', 'charge_id', 'UPDATE'), ('stored_outputs', 'output_index', 'UPDATE'),
    ('stored_outputs', 'project_id', 'UPDATE'), ('stored_outputs', 'node_id', 'UPDATE'),
    ('balances', '', 'SELECT'), ('balances', 'credits', 'UPDATE'),
    ('ledger_entries', '', 'SELECT'), ('ledger_entries', '', 'INSERT'),
    ('makegood_orphans', '', 'INSERT'), ('makegood_orphans', '', 'UPDATE'),
    ('makegood_refunds', '', 'INSERT'), ('makegood_charges', '', 'UPDATE'),
    ('makegood_recoveries', '', 'INSERT'), ('makegood_orphan_events', '', 'INSERT'),
    ('makegood_late_questions', '', 'INSERT'), ('makegood_late_questions', '', 'UPDATE'), ('makegood_late_successes', '', 'INSERT'),
    ('makegood_passes', '', 'INSERT'), ('makegood_cursors', '', 'UPDATE'), ('makegood_brake', '', 'UPDATE'),
    ('makegood_provider_state', '', 'INSERT'), ('makegood_provider_state', '', 'UPDATE'),
    ('makegood_uploads', '', 'INSERT'), ('makegood_uploads', '', 'UPDATE'), ('makegood_uploads', '', 'DELETE')
) AS n(relation, columns, needed)
WHERE NOT CASE WHEN n.columns = '' THEN has_table_privilege(n.relation, n.needed)
               ELSE has_column_privilege(n.relation, n.columns, n.needed) END
ORDER BY 1, 2
