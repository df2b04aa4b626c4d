-- provider_shares: which process holds which share of a provider's limits, and whether a process
-- has opened its circuit. $1: the provider.
SELECT s.version, CAST(s.holdings AS text) AS holdings, p.asked_at, p.circuit_open_until, p.noted_at
FROM (SELECT CAST($1 AS text) AS provider) AS asked
LEFT JOIN makegood_provider_shares AS s ON s.provider = asked.provider
LEFT JOIN makegood_provider_state AS p ON p.provider = asked.provider
