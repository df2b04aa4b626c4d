-- search_ledger_by_charge: whether ledger_entries can be searched by the charge. Only explained,
-- never run.
SELECT charge_id FROM ledger_entries WHERE charge_id = CAST($1 AS text)
