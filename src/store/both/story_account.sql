-- story_account: the kind of the account that paid. $1: its id. The platform may lack this
-- relation.
SELECT a.kind FROM accounts a WHERE a.id = $1
