-- try_lock_charges: locks makegood's rows of the listed charges that are there, without waiting and one by one by their key, and
-- returns those that another session has locked: `makegood_store_output` or an older version. $1: JSON list of charge ids.
SELECT d.v AS charge_id
FROM (SELECT v FROM jsonb_array_elements_text($1::jsonb) AS v ORDER BY v) AS d
WHERE (SELECT 1 FROM makegood_charges c WHERE c.charge_id = d.v) IS NOT NULL
  AND (SELECT 1 FROM makegood_charges c WHERE c.charge_id = d.v FOR UPDATE SKIP LOCKED) IS NULL
