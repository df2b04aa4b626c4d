-- incomplete_activity: refunded or recovered items whose billing activity lacks one of its three
-- steps with their times (P21).
SELECT o.charge_id, o.output_index
FROM makegood_orphans o
WHERE o.state IN ('refunded', 'recovered', 'relinked')
  AND (SELECT count(DISTINCT CASE a.activity
                               WHEN 'deduction' THEN 1 WHEN 'failure_detected' THEN 2 ELSE 3 END)
       FROM billing_activity a
       WHERE a.charge_id = o.charge_id
         AND (a.output_index = o.output_index OR a.activity = 'deduction')
         AND a.activity <> 'refund_by_platform' AND a.at IS NOT NULL) < 3
ORDER BY o.charge_id, o.output_index
