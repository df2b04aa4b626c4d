-- search_charges_by_id: whether charges can be searched by its id. Only explained, never run.
SELECT id FROM charges WHERE id = CAST($1 AS text)
