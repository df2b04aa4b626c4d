-- story_account: which kind of account paid. $1: its id. The platform need not have this relation.
SELECT a.kind FROM accounts a WHERE a.id = $1
