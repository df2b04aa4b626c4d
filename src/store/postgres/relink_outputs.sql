-- relink_outputs: puts stored outputs back where they belong (P13), comparing the link they had when it was decided.
-- $1: JSON list of {id, from_charge_id, from_output_index, charge_id, output_index, project_id, node_id, keep_place}.
-- keep_place 1: a person moved it; the link is mended and the place stays. Fewer rows than listed: somebody else was here, roll back.
UPDATE stored_outputs s
SET charge_id = d.charge_id, output_index = d.output_index,
    project_id = CASE WHEN d.keep_place = 1 THEN s.project_id ELSE d.project_id END,
    node_id = CASE WHEN d.keep_place = 1 THEN s.node_id ELSE d.node_id END
FROM jsonb_to_recordset($1::jsonb) AS d(id text, from_charge_id text, from_output_index bigint, charge_id text, output_index bigint, project_id text, node_id text, keep_place bigint)
WHERE s.id = d.id AND s.deleted_at IS NULL
  AND s.id = ANY (ARRAY(SELECT v ->> 'id' FROM jsonb_array_elements($1::jsonb) AS v))
  AND (s.charge_id IS NOT DISTINCT FROM d.from_charge_id AND s.output_index IS NOT DISTINCT FROM d.from_output_index
       -- Half a link is none.
       OR d.from_charge_id IS NULL AND (s.charge_id IS NULL OR s.output_index IS NULL))
RETURNING s.id
