-- read_failure_times: reads the times that failed items are found by, and fails if one of them
-- cannot be read. $1: items of charges after this id. $2: up to and with this.
SELECT count(i.failed_at) AS times FROM charge_items i WHERE i.charge_id > $1 AND i.charge_id <= $2
