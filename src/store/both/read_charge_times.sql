-- read_charge_times: reads the times by which charges are found, and fails if one of them cannot be
-- read. $1: charges after this id. $2: up to and including this.
SELECT count(c.charged_at) AS times FROM charges c WHERE c.id > $1 AND c.id <= $2
