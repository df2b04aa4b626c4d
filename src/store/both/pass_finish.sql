-- pass_finish: a pass ends. $1: its id. $2: now. $3: done, failed or stopped. $4: its report as JSON.
UPDATE makegood_passes SET finished_at = $2, outcome = $3, report = $4 WHERE id = $1
