-- find_undelivered: items of one chunk of charges that are older than their grace, paid for and not delivered.
-- $1, $2: the charge after which to begin (time, id). $3, $4: the last charge of the chunk (time, id); no id: all up to $3.
-- $5: charged at or before this is older than the grace of those without one of their own.
-- $6: JSON list of {provider, model or null, before}: the same for providers and models with a grace of their own.
-- A charge without items, or with free ones only, of which none is delivered, stands as its own output -1. What has an unresolved orphan already is left out;
-- what was closed as delivered and is not any more comes again. Costs follow the charges of the chunk.
-- What is null where the contract knows no null counts as something, so that it is seen and told.
SELECT c.id AS charge_id, i.output_index
FROM charges c
JOIN charge_items i ON i.charge_id = c.id
LEFT JOIN (SELECT value ->> 'provider' AS provider, value ->> 'model' AS model, value ->> 'before' AS before FROM json_each($6)) AS gm ON gm.provider = c.provider AND gm.model = c.model
LEFT JOIN (SELECT value ->> 'provider' AS provider, value ->> 'model' AS model, value ->> 'before' AS before FROM json_each($6)) AS gp ON gp.provider = c.provider AND gp.model IS NULL
WHERE (c.charged_at, c.id) > ($1, $2) AND c.charged_at <= $3 AND ($4 IS NULL OR (c.charged_at, c.id) <= ($3, $4))
  AND c.charged_at <= coalesce(gm.before, gp.before, $5)
  AND i.output_index IS NOT NULL AND coalesce(i.credits, 1) <> 0
  AND NOT EXISTS (SELECT 1 FROM makegood_deliveries v
                  WHERE v.charge_id = i.charge_id AND v.output_index = i.output_index)
  AND NOT EXISTS (SELECT 1 FROM makegood_orphans o
                  WHERE o.charge_id = i.charge_id AND o.output_index = i.output_index
                    AND (o.state IN ('open', 'held', 'refunded') OR o.reason <> 'delivered' AND o.state = 'closed'))
UNION ALL
SELECT c.id, -1
FROM charges c
LEFT JOIN (SELECT value ->> 'provider' AS provider, value ->> 'model' AS model, value ->> 'before' AS before FROM json_each($6)) AS gm ON gm.provider = c.provider AND gm.model = c.model
LEFT JOIN (SELECT value ->> 'provider' AS provider, value ->> 'model' AS model, value ->> 'before' AS before FROM json_each($6)) AS gp ON gp.provider = c.provider AND gp.model IS NULL
WHERE (c.charged_at, c.id) > ($1, $2) AND c.charged_at <= $3 AND ($4 IS NULL OR (c.charged_at, c.id) <= ($3, $4))
  AND c.charged_at <= coalesce(gm.before, gp.before, $5)
  AND c.id IS NOT NULL AND (coalesce(c.subscription_credits, 1) <> 0 OR coalesce(c.wallet_credits, 1) <> 0)
  AND NOT EXISTS (SELECT 1 FROM charge_items i
                  WHERE i.charge_id = c.id AND i.output_index IS NOT NULL AND coalesce(i.credits, 1) <> 0)
  AND NOT EXISTS (SELECT 1 FROM makegood_deliveries v WHERE v.charge_id = c.id)
  AND NOT EXISTS (SELECT 1 FROM makegood_orphans o WHERE o.charge_id = c.id AND o.output_index = -1)
