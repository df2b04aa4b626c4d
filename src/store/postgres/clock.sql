-- clock: what time it is for all workers.
SELECT clock_timestamp() AS now
