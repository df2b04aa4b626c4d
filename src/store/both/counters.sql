-- counters: the running totals.
SELECT metric, label_a, label_b, value FROM makegood_counters ORDER BY metric, label_a, label_b
