-- outputs_of_charges: every output that hangs on one of the listed charges.
-- $1: JSON list of charge ids.
SELECT s.id, s.charge_id, s.output_index, s.provider, s.provider_job_id, s.provider_output_index,
       s.project_id, s.node_id,
       s.sha256, s.stored_at, s.moved_at, s.deleted_at
FROM stored_outputs s
WHERE s.charge_id IN (SELECT value FROM json_each($1))
