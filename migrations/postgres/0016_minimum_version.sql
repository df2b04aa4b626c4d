-- The oldest version of the tables that a binary may have been made for to work with these tables.
-- A later migration that older binaries cannot work with sets it; until then every older binary may
-- go on.
CREATE TABLE makegood_minimum_version (
    one     integer NOT NULL PRIMARY KEY DEFAULT 1 CHECK (one = 1),
    version bigint  NOT NULL
);

INSERT INTO makegood_minimum_version (version) VALUES (0);
