-- last_success: when a pass last succeeded. No row: never.
SELECT finished_at FROM makegood_passes WHERE outcome = 'done' ORDER BY finished_at DESC LIMIT 1
