-- provider_brakes: providers whose refunds a person holds.
SELECT provider, engaged_at, reason
FROM makegood_provider_brakes
WHERE engaged_at IS NOT NULL
ORDER BY provider
