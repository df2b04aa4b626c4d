-- rules_used: the rules of the decision table that settled, held or postponed an item.
SELECT DISTINCT rule FROM makegood_orphan_events WHERE rule IS NOT NULL ORDER BY rule
