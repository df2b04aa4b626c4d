-- check_result: the result of the last trial whether refunds can be posted.
SELECT result, detail FROM makegood_checks WHERE name = 'posting'
