-- check_result: what the last check whether refunds can be posted came to.
SELECT result, detail FROM makegood_checks WHERE name = 'posting'
