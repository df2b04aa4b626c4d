-- orphan_rows: the listed orphans with their charges, and whether a recovery proves the delivery. A
-- charge that is gone leaves its columns null. $1: JSON list of orphan ids. Each charge is read by
-- its key, once per orphan (OFFSET 0: no join order to choose).
SELECT o.id AS orphan_id, o.charge_id, o.output_index, o.opened_at, o.refund_by, o.questions, o.first_asked_at, o.waits,
       o.state, o.reason, o.lease_token,
       CASE WHEN (SELECT count(*) FROM makegood_proofs v
                  WHERE v.charge_id = o.charge_id AND v.output_index = o.output_index) > 0
            THEN 1::bigint ELSE 0::bigint END AS was_recovered,
       c.id AS found_charge, c.account_id, c.project_id, c.node_id, c.provider, c.model, c.provider_job_id, c.charged_at,
       c.subscription_credits, c.wallet_credits, c.cancelled_at
FROM makegood_orphans o
LEFT JOIN LATERAL (SELECT p.id, p.account_id, p.project_id, p.node_id, p.provider, p.model, p.provider_job_id, p.charged_at,
                          p.subscription_credits, p.wallet_credits, p.cancelled_at
                   FROM charges p WHERE p.id = o.charge_id OFFSET 0) AS c ON true
WHERE o.id = ANY (ARRAY(SELECT v::bigint FROM jsonb_array_elements_text($1::jsonb) AS v))
ORDER BY o.urgent_at, o.id
