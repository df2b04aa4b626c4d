-- A platform need not have projects and places: project_id and node_id of charges and
-- stored_outputs may be NULL. Two that are both NULL are the same place. By `=` such an output was
-- never delivered, and its item was refunded although the customer has it.
--
-- IS NOT DISTINCT FROM takes its operator from the search path, which makegood_define sets to
-- pg_catalog, so no other role can put its own operator in (migration 0012).

SELECT makegood_define($definition$
CREATE OR REPLACE VIEW {makegood_deliveries} AS
SELECT i.charge_id, i.output_index, s.id AS stored_output_id, s.stored_at
FROM {makegood_items} i
JOIN {stored_outputs} s ON s.charge_id OPERATOR(pg_catalog.=) i.charge_id
                       AND s.output_index OPERATOR(pg_catalog.=) i.output_index
WHERE (i.provider_job_id IS NULL
       OR (s.provider OPERATOR(pg_catalog.=) i.provider
           AND s.provider_job_id OPERATOR(pg_catalog.=) i.provider_job_id
           AND s.provider_output_index OPERATOR(pg_catalog.=) i.provider_output_index))
  AND ((s.project_id IS NOT DISTINCT FROM i.project_id AND s.node_id IS NOT DISTINCT FROM i.node_id)
       OR s.moved_at IS NOT NULL)
$definition$);
