-- orphans_of_charge: the orphans of one charge, for looking at them without acting. $1: the
-- charge's id.
SELECT id, state FROM makegood_orphans WHERE charge_id = $1 ORDER BY output_index
