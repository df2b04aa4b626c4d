-- settings_in_force: the value of each setting whose name is in $1 (separated by commas), to find
-- out whether a pooler has dropped what was asked for. Where pg_settings knows it, in its base
-- unit.
SELECT wanted.name, coalesce(known.setting, current_setting(wanted.name, true)) AS value
FROM unnest(string_to_array($1, ',')) AS wanted (name)
LEFT JOIN pg_catalog.pg_settings AS known ON lower(known.name) = lower(wanted.name)
