-- Who asks each provider how much, so that all processes together keep to its limits.
--
-- One row a provider and not one a process: a single statement replaces all holdings, and only if
-- nobody has replaced them since they were read (`version`). So processes take shares one after the
-- other without a lock that outlives a statement, and no row is ever removed.

CREATE TABLE makegood_provider_shares (
    provider text PRIMARY KEY,
    version  integer NOT NULL,
    holdings text NOT NULL
) STRICT;
