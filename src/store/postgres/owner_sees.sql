-- owner_sees: rows of each relation that the owner of the schema sees, up to 1000: what this role
-- does not see of them, row security hides from it.
SELECT relation, seen FROM makegood_sees()
