-- try_lock_charges: locks makegood's rows of the listed charges that are there, without waiting and in the order of their ids, and
-- returns those that another session has locked: `makegood_store_output` or another settle. $1: JSON list of charge ids.
WITH due AS MATERIALIZED (
    SELECT DISTINCT v AS charge_id FROM jsonb_array_elements_text($1::jsonb) AS v
), locked AS MATERIALIZED (
    SELECT c.charge_id FROM makegood_charges c WHERE c.charge_id IN (SELECT charge_id FROM due)
    ORDER BY c.charge_id
    FOR UPDATE OF c SKIP LOCKED
)
SELECT c.charge_id FROM makegood_charges c
WHERE c.charge_id IN (SELECT charge_id FROM due) AND c.charge_id NOT IN (SELECT charge_id FROM locked)
