-- last_success: when a pass last ended well. No row: never.
SELECT finished_at FROM makegood_passes WHERE outcome = 'done' ORDER BY finished_at DESC LIMIT 1
