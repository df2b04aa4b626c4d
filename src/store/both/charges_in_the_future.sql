-- charges_in_the_future: charges whose time is in the future, for a finding. $1: later than this.
-- $2: before this; odd_times reports later ones. At most 101.
SELECT id
FROM charges
WHERE charged_at > $1 AND charged_at < $2 AND id IS NOT NULL
ORDER BY charged_at LIMIT 101
