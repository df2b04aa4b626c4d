-- rules_used: which rules of the decision table settled, held or postponed anything.
SELECT DISTINCT rule FROM makegood_orphan_events WHERE rule IS NOT NULL ORDER BY rule
