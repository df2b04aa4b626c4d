-- orphan_item: the item of an orphan and its lease's token, from makegood's own row alone. $1: the
-- orphan.
SELECT charge_id, output_index, lease_token FROM makegood_orphans WHERE id = $1
