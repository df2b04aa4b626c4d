-- lost_output: the recovered output of one item whose row the platform has removed, with the
-- columns to insert it again. $1: charge. $2: output index. No row: nothing is lost. uri is null if
-- makegood only put the platform's own row back.
SELECT l.stored_output_id, v.uri, v.size_bytes, v.sha256, v.content_type,
       a.provider_job_id AS recovered_job,
       i.provider, i.provider_job_id, i.provider_output_index, c.account_id, c.project_id,
       c.node_id,
       c.subscription_credits, c.wallet_credits, o.id AS orphan_id,
       CAST(CASE WHEN s.id IS NULL THEN 0 ELSE 1 END AS bigint) AS has_row
FROM makegood_lost_outputs l
JOIN makegood_recoveries v ON v.id = l.recovery_id
JOIN makegood_resolutions r ON r.id = v.resolution_id
LEFT JOIN makegood_answers a ON a.id = r.answer_id
JOIN makegood_items i ON i.charge_id = l.charge_id AND i.output_index = l.output_index
JOIN charges c ON c.id = l.charge_id
JOIN makegood_orphans o ON o.charge_id = l.charge_id AND o.output_index = l.output_index
LEFT JOIN stored_outputs s ON s.id = l.stored_output_id
WHERE l.charge_id = $1 AND l.output_index = $2
ORDER BY CASE WHEN v.uri IS NULL THEN 1 ELSE 0 END, l.recovery_id DESC
LIMIT 1
