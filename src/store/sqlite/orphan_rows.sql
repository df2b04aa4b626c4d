-- orphan_rows: the listed orphans with their charges, and whether a recovery proves the delivery. A
-- charge that is gone leaves its columns null. $1: JSON list of orphan ids.
SELECT o.id AS orphan_id, o.charge_id, o.output_index, o.opened_at, o.refund_by, o.questions,
       o.first_asked_at, o.waits,
       o.state, o.reason, o.lease_token,
       CASE WHEN (SELECT count(*) FROM makegood_proofs v
                  WHERE v.charge_id = o.charge_id AND v.output_index = o.output_index) > 0
            THEN 1 ELSE 0 END AS was_recovered,
       c.id AS found_charge, c.account_id, c.project_id, c.node_id, c.provider, c.model,
       c.provider_job_id, c.charged_at,
       c.subscription_credits, c.wallet_credits, c.cancelled_at
FROM makegood_orphans o
LEFT JOIN charges c ON c.id = o.charge_id
WHERE o.id IN (SELECT value FROM json_each($1))
ORDER BY o.urgent_at, o.id
