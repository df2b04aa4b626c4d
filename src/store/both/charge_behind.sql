-- charge_behind: the time of the charge that has $2 newer ones, of those up to $1. No row: there
-- are not that many.
SELECT charged_at AS at
FROM charges
WHERE charged_at <= $1
ORDER BY charged_at DESC LIMIT 1 OFFSET $2
