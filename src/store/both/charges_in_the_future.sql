-- charges_in_the_future: charges whose time is still to come, a finding. $1: later than this. At most 101.
SELECT id FROM charges WHERE charged_at > $1 AND id IS NOT NULL ORDER BY charged_at LIMIT 101
