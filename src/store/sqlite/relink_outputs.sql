-- relink_outputs: puts stored outputs back where they belong (P13), comparing the link they had
-- when it was decided. $1: JSON list of {id, from_charge_id, from_output_index, charge_id,
-- output_index, project_id, node_id, keep_place}. keep_place 1: a person moved it; the link is
-- mended and the place stays. Fewer rows than listed: somebody else was here, roll back.
UPDATE stored_outputs AS s
SET charge_id = d.charge_id, output_index = d.output_index,
    project_id = CASE WHEN d.keep_place = 1 THEN s.project_id ELSE d.project_id END,
    node_id = CASE WHEN d.keep_place = 1 THEN s.node_id ELSE d.node_id END
FROM (SELECT value ->> 'id' AS id, value ->> 'from_charge_id' AS from_charge_id,
             value ->> 'from_output_index' AS from_output_index, value ->> 'charge_id' AS charge_id,
             value ->> 'output_index' AS output_index, value ->> 'project_id' AS project_id,
             value ->> 'node_id' AS node_id, value ->> 'keep_place' AS keep_place
             FROM json_each($1)) AS d
WHERE s.id = d.id AND s.deleted_at IS NULL
  AND (s.charge_id IS d.from_charge_id AND s.output_index IS d.from_output_index
       -- Half a link is none.
       OR d.from_charge_id IS NULL AND (s.charge_id IS NULL OR s.output_index IS NULL))
RETURNING id
