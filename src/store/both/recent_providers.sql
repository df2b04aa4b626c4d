-- recent_providers: which providers charges name. $1: from then on; a day, so that it costs little.
SELECT provider, count(*) AS charges FROM charges WHERE charged_at >= $1 GROUP BY provider ORDER BY provider
