-- search_items_by_charge: whether charge_items can be searched by the charge. Only explained, never
-- run.
SELECT charge_id, output_index FROM charge_items WHERE charge_id = CAST($1 AS text)
