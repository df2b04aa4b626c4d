-- charges_in_the_future: charges whose time is still to come, a finding. $1: later than this.
-- $2: before this; odd_times tells of what is later. At most 101.
SELECT id
FROM charges
WHERE charged_at > $1 AND charged_at < $2 AND id IS NOT NULL
ORDER BY charged_at LIMIT 101
