-- count_up: raises running totals; in the order of their keys, last in the transaction, so that no
-- two wait for each other in a ring. They stop at the end of the range rather than break. $1: JSON
-- list of {metric, label_a, label_b, value}.
INSERT INTO makegood_counters (metric, label_a, label_b, value)
SELECT d.metric, d.label_a, d.label_b, d.value
FROM (SELECT value ->> 'metric' AS metric, value ->> 'label_a' AS label_a,
             value ->> 'label_b' AS label_b, value ->> 'value' AS value FROM json_each($1)) AS d
WHERE true
ORDER BY d.metric, d.label_a, d.label_b
ON CONFLICT (metric, label_a, label_b) DO UPDATE
SET value = CASE WHEN makegood_counters.value > 9223372036854775807 - excluded.value
    THEN 9223372036854775807
                 ELSE makegood_counters.value + excluded.value END
