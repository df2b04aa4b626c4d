-- erase_orphans_of_account: the next orphans by their key, and whether each is the account's (due
-- 1). The platform may have removed the charge, so makegood's own record of it counts too. $1:
-- after this id. $2: at most this many. $3: the account.
SELECT o.id, o.charge_id,
       EXISTS (SELECT 1 FROM charges c WHERE c.id = o.charge_id AND c.account_id = $3)
       OR EXISTS (SELECT 1 FROM makegood_charges m
                  WHERE m.charge_id = o.charge_id AND m.account_id = $3) AS due
FROM makegood_orphans o
WHERE o.id > $1
ORDER BY o.id
LIMIT $2
