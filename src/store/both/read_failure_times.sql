-- read_failure_times: reads the times by which failed items are found, and fails if one of them
-- cannot be read. $1: items of charges after this id. $2: up to and including this.
SELECT count(i.failed_at) AS times FROM charge_items i WHERE i.charge_id > $1 AND i.charge_id <= $2
