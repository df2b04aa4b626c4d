-- A platform need not have projects and places: project_id and node_id of charges and
-- stored_outputs may be NULL. Two that are both NULL are the same place. By `=` such an output was
-- never delivered, and its item was refunded although the customer has it.

DROP VIEW makegood_deliveries;
CREATE VIEW makegood_deliveries AS
SELECT i.charge_id, i.output_index, s.id AS stored_output_id, s.stored_at
FROM makegood_items i
JOIN stored_outputs s ON s.charge_id = i.charge_id AND s.output_index = i.output_index
WHERE (i.provider_job_id IS NULL
       OR (s.provider = i.provider AND s.provider_job_id = i.provider_job_id
           AND s.provider_output_index = i.provider_output_index))
  AND ((s.project_id IS i.project_id AND s.node_id IS i.node_id) OR s.moved_at IS NOT NULL);
