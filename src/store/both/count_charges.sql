-- count_charges: the number of charges after $1 and up to $2, counted up to $3. An index-only scan,
-- about 100 entries a block.
SELECT count(*) AS charges
FROM (SELECT 1 AS one FROM charges WHERE charged_at > $1 AND charged_at <= $2 LIMIT $3) AS counted
