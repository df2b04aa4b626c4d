-- orphans_of_charge: the orphans of one charge, to examine them without acting. $1: the charge's
-- id.
SELECT id, state FROM makegood_orphans WHERE charge_id = $1 ORDER BY output_index
