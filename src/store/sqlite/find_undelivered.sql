-- find_undelivered: the next chunk of charges, and those of its items that are past their grace,
-- paid for and not delivered. $1, $2: the charge after which the chunk begins (time, id). $3: the
-- latest time to look at. $4: charges in the chunk. $5: charged at or before this is past the grace
-- of providers and models without a grace of their own. $6: JSON list of {provider, model or null,
-- before}: the same for those that have one. $7: only charges whose own grace ended within so many
-- microseconds. An item is a row without looked_at. The last row describes the chunk: its last
-- charge and time, and how many charges it has; fewer than $4: the stretch ends here. No row:
-- nothing is left. A charge without items, or with free ones only, of which none is delivered,
-- stands as its own output -1. An item with an unresolved orphan is left out; one that was closed
-- as delivered and is not any more is returned again. lost 1: a recovery on record proves its
-- delivery, and the platform has removed the row since: it is told and not opened (P10). A NULL
-- where the contract allows none counts as a value, so that the row is found and reported. The
-- delivery condition is that of makegood_deliveries; a test compares the two.
WITH chunk AS MATERIALIZED (
    SELECT c.id, c.charged_at, c.provider, c.model, c.provider_job_id, c.project_id, c.node_id,
           c.subscription_credits, c.wallet_credits
    FROM charges c
    WHERE c.charged_at >= $1 AND (c.charged_at, c.id) > ($1, $2) AND c.charged_at <= $3
      AND c.id IS NOT NULL
    ORDER BY c.charged_at, c.id
    LIMIT $4
), graces AS MATERIALIZED (
    SELECT value ->> 'provider' AS provider, value ->> 'model' AS model,
           value ->> 'before' AS before
    FROM json_each($6)
), aged AS (
    SELECT c.*, coalesce(
        (SELECT min(g.before) FROM graces g WHERE g.provider = c.provider AND g.model = c.model),
        (SELECT min(g.before) FROM graces g WHERE g.provider = c.provider AND g.model IS NULL),
        $5) AS own_before
    FROM chunk c
), ripe AS (
    SELECT c.*
    FROM aged c
    WHERE c.charged_at <= c.own_before AND c.charged_at > c.own_before - $7
)
SELECT c.id AS charge_id, coalesce(i.output_index, -1) AS output_index, NULL AS at,
       NULL AS looked_at,
       CASE WHEN i.output_index IS NULL THEN 0 ELSE min(1,
           (SELECT count(*) FROM makegood_lost_outputs l
            WHERE l.charge_id = c.id AND l.output_index = i.output_index)) END AS lost
FROM ripe c
LEFT JOIN charge_items i ON i.charge_id = c.id AND i.output_index IS NOT NULL
    AND coalesce(i.credits, 1) <> 0
WHERE CASE WHEN i.output_index IS NOT NULL THEN
        (SELECT count(*) FROM stored_outputs s
         WHERE s.charge_id = c.id AND s.output_index = i.output_index
           AND (nullif(coalesce(i.provider_job_id, c.provider_job_id), '') IS NULL
                OR (s.provider = c.provider
                    AND s.provider_job_id = coalesce(i.provider_job_id, c.provider_job_id)
                    AND s.provider_output_index = coalesce(i.provider_output_index,
                            CASE WHEN i.provider_job_id IS NULL THEN i.output_index ELSE 0 END)))
           AND ((s.project_id IS c.project_id AND s.node_id IS c.node_id)
                OR s.moved_at IS NOT NULL)) = 0
        AND (SELECT count(*) FROM makegood_orphans o
             WHERE o.charge_id = c.id AND o.output_index = i.output_index
               AND (o.state IN ('open', 'held', 'refunded') OR o.reason <> 'delivered'
                    AND o.state = 'closed')) = 0
    ELSE
        (coalesce(c.subscription_credits, 1) <> 0 OR coalesce(c.wallet_credits, 1) <> 0)
        AND (SELECT count(*) FROM makegood_deliveries v WHERE v.charge_id = c.id) = 0
        AND (SELECT count(*) FROM makegood_orphans o WHERE o.charge_id = c.id
             AND o.output_index = -1) = 0
    END
UNION ALL
SELECT last.id, NULL, last.charged_at, last.looked_at, NULL
FROM (SELECT c.id, c.charged_at, (SELECT count(*) FROM chunk) AS looked_at
      FROM chunk c ORDER BY c.charged_at DESC, c.id DESC LIMIT 1) AS last
