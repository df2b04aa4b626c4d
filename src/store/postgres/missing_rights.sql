-- missing_rights: what a pass needs and this role may not do. No row: it may do all of it.
-- The same as the SQL of docs/adopting.md grants, without the views that only people read; a test compares them.
SELECT n.relation || CASE WHEN n.columns = '' THEN '' ELSE ' (' || n.columns || ')' END AS relation, n.needed
FROM (
    SELECT * FROM (VALUES
        ('charges', '', 'SELECT'), ('charge_items', '', 'SELECT'),
        ('stored_outputs', '', 'SELECT'), ('stored_outputs', '', 'INSERT'),
        ('stored_outputs', 'charge_id', 'UPDATE'), ('stored_outputs', 'output_index', 'UPDATE'),
        ('stored_outputs', 'project_id', 'UPDATE'), ('stored_outputs', 'node_id', 'UPDATE'),
        ('balances', '', 'SELECT'), ('ledger_entries', '', 'SELECT'), ('makegood_refunds', '', 'SELECT'),
        ('makegood_items', '', 'SELECT'), ('makegood_deliveries', '', 'SELECT'), ('makegood_migrations', '', 'SELECT'),
        ('makegood_minimum_version', '', 'SELECT'), ('makegood_erasures', '', 'SELECT'),
        ('makegood_proofs', '', 'SELECT'), ('makegood_lost_outputs', '', 'SELECT'), ('makegood_refund_reversals', '', 'SELECT'),
        ('makegood_brake', '', 'SELECT'), ('makegood_brake', '', 'UPDATE'),
        ('makegood_uploads', '', 'DELETE'),
        ('makegood_post_refunds(jsonb)', '', 'EXECUTE'), ('makegood_lock_balances(jsonb)', '', 'EXECUTE'),
        ('makegood_try_lock_balances(jsonb)', '', 'EXECUTE'), ('makegood_try_balance(jsonb)', '', 'EXECUTE'),
        ('makegood_try_refund(jsonb)', '', 'EXECUTE'), ('makegood_sees()', '', 'EXECUTE'),
        ('makegood_checks', '', 'SELECT'), ('makegood_checks', '', 'UPDATE')
    ) AS listed(relation, columns, needed)
    UNION ALL
    SELECT relation, '', needed
    FROM (VALUES ('makegood_recoveries'), ('makegood_answers'), ('makegood_orphan_events'),
                 ('makegood_late_successes'), ('makegood_brake_events')) AS added_to(relation),
         (VALUES ('SELECT'), ('INSERT')) AS verbs(needed)
    UNION ALL
    SELECT relation, '', needed
    FROM (VALUES ('makegood_passes'), ('makegood_cursors'), ('makegood_charges'), ('makegood_orphans'),
                 ('makegood_late_questions'), ('makegood_resolutions'), ('makegood_counters'), ('makegood_provider_state'),
                 ('makegood_provider_shares'), ('makegood_uploads'), ('makegood_refund_sums'),
                 ('makegood_accounts'), ('makegood_provider_brakes')) AS changed(relation),
         (VALUES ('SELECT'), ('INSERT'), ('UPDATE')) AS verbs(needed)
) AS n
WHERE NOT CASE WHEN n.columns <> '' THEN has_column_privilege(n.relation, n.columns, n.needed)
               WHEN n.needed = 'EXECUTE' THEN has_function_privilege(n.relation, n.needed)
               ELSE has_table_privilege(n.relation, n.needed) END
ORDER BY 1, 2
