-- endings: the state of every item, and of charges as a whole (index -1) that are orphans.
SELECT i.charge_id, i.output_index, i.credits, c.account_id, c.charged_at, i.failed_at, o.state,
       o.reason, o.opened_at, o.resolved_at, r.subscription_credits, r.wallet_credits, u.status,
       u.billable, v.kind AS recovery, v.uri, v.sha256, v.content_type, v.size_bytes, v.from_charge_id,
       (SELECT a.message FROM makegood_answers a
        WHERE a.provider = c.provider
          AND a.provider_job_id = coalesce(i.provider_job_id, c.provider_job_id)
        ORDER BY a.id DESC LIMIT 1) AS message
FROM (SELECT charge_id, output_index, credits, provider_job_id, failed_at FROM charge_items
      UNION ALL
      SELECT charge_id, -1, 0, NULL, NULL FROM makegood_orphans WHERE output_index = -1) AS i
JOIN charges c ON c.id = i.charge_id
LEFT JOIN makegood_orphans o ON o.charge_id = i.charge_id AND o.output_index = i.output_index
LEFT JOIN makegood_refunds r ON r.charge_id = i.charge_id AND r.output_index = i.output_index
LEFT JOIN usage_history u ON u.charge_id = i.charge_id AND u.output_index = i.output_index
LEFT JOIN makegood_resolutions s ON s.charge_id = i.charge_id AND s.output_index = i.output_index
                                AND s.superseded_at IS NULL
LEFT JOIN makegood_recoveries v ON v.resolution_id = s.id
ORDER BY i.charge_id, i.output_index
