-- search_outputs_by_item: whether stored_outputs can be searched by the item. Only explained, never
-- run.
SELECT charge_id, output_index FROM stored_outputs WHERE charge_id = CAST($1 AS text)
