-- Charges that have just outlived their grace, one in 20 without an output; and failures that the
-- platform has recorded since the last pass, half of them of items that wait.
CREATE TEMP TABLE fresh AS
SELECT i, seed.id(i) AS id, (1 + i * 7919 % 5000) AS account, 'failed-' || i AS job
FROM generate_series(200001, 201000) AS i;
