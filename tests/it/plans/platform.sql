-- A platform whose tables have other types than the contract: uuid and bigint ids, integers,
-- timestamps without a zone, a small integer for the bucket. The views cast and compute, writes go
-- through INSTEAD OF triggers, and the indexes are on the views' expressions, as docs/adopting.md
-- asks for. Statements of the triggers are marked: they are the platform's, not makegood's.
CREATE TABLE people (person bigint PRIMARY KEY, is_team boolean NOT NULL);
CREATE TABLE wallets (person bigint NOT NULL, kind smallint NOT NULL, amount numeric(20) NOT NULL,
                      PRIMARY KEY (person, kind));
CREATE TABLE runs (run uuid PRIMARY KEY, person bigint NOT NULL, board uuid NOT NULL,
                   cell uuid NOT NULL, vendor varchar(40) NOT NULL,
                   model varchar(80) NOT NULL, ticket varchar(80), began timestamp NOT NULL,
                   from_quota integer NOT NULL,
                   from_purse integer NOT NULL, stopped timestamp);
CREATE TABLE shots (run uuid NOT NULL, nth integer NOT NULL, price integer NOT NULL,
                    ticket varchar(80), ticket_nth integer, broke timestamp,
                    PRIMARY KEY (run, nth));
CREATE TABLE media (media text PRIMARY KEY, run uuid, nth integer, vendor varchar(40) NOT NULL,
                    ticket varchar(80) NOT NULL,
                    ticket_nth integer NOT NULL, board uuid NOT NULL, cell uuid NOT NULL,
                    place text NOT NULL, mime text NOT NULL,
                    bytes bigint NOT NULL, hash char(64) NOT NULL, kept timestamp NOT NULL,
                    dragged timestamp, binned timestamp);
CREATE TABLE journal (entry text PRIMARY KEY, person bigint NOT NULL, wallet smallint NOT NULL,
                      amount integer NOT NULL, why smallint NOT NULL,
                      run uuid NOT NULL, nth integer, reference text, posted timestamp NOT NULL);

CREATE VIEW accounts AS
SELECT person::text AS id, CASE WHEN is_team THEN 'workspace' ELSE 'user' END AS kind FROM people;
CREATE VIEW charges AS
SELECT run::text AS id, person::text AS account_id, board::text AS project_id,
       cell::text AS node_id, vendor::text AS provider,
       model::text AS model, ticket::text AS provider_job_id,
       began AT TIME ZONE 'UTC' AS charged_at,
       from_quota::bigint AS subscription_credits, from_purse::bigint AS wallet_credits,
       stopped AT TIME ZONE 'UTC' AS cancelled_at
FROM runs;
CREATE VIEW charge_items AS
SELECT run::text AS charge_id, nth::bigint AS output_index, price::bigint AS credits,
       ticket::text AS provider_job_id,
       ticket_nth::bigint AS provider_output_index, broke AT TIME ZONE 'UTC' AS failed_at
FROM shots;
CREATE VIEW stored_outputs AS
SELECT media AS id, run::text AS charge_id, nth::bigint AS output_index, vendor::text AS provider,
       ticket::text AS provider_job_id,
       ticket_nth::bigint AS provider_output_index, board::text AS project_id,
       cell::text AS node_id, place AS uri, mime AS content_type,
       bytes AS size_bytes, hash::text AS sha256, kept AT TIME ZONE 'UTC' AS stored_at,
       dragged AT TIME ZONE 'UTC' AS moved_at,
       binned AT TIME ZONE 'UTC' AS deleted_at
FROM media;
CREATE VIEW balances AS
SELECT person::text AS account_id, CASE kind WHEN 0 THEN 'subscription' ELSE 'wallet' END AS bucket,
       amount::bigint AS credits
FROM wallets;
CREATE VIEW ledger_entries AS
SELECT entry AS id, person::text AS account_id, CASE wallet WHEN 0 THEN 'subscription'
    ELSE 'wallet' END AS bucket,
       amount::bigint AS credits, CASE why WHEN 0 THEN 'charge' ELSE 'refund' END AS kind,
       run::text AS charge_id,
       nth::bigint AS output_index, reference AS refund_id, posted AT TIME ZONE 'UTC' AS posted_at
FROM journal;

CREATE FUNCTION add_to_wallet() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$ BEGIN
  UPDATE /* the platform's */ wallets SET amount = amount + (NEW.credits - OLD.credits)
  WHERE person = NEW.account_id::bigint AND kind = CASE NEW.bucket WHEN 'subscription' THEN 0
    ELSE 1 END;
  RETURN NEW; END $$;
CREATE TRIGGER add_to_wallet INSTEAD OF UPDATE
    ON balances FOR EACH ROW EXECUTE FUNCTION add_to_wallet();
CREATE FUNCTION add_to_journal() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$ BEGIN
  INSERT INTO /* the platform's */ journal
  VALUES (NEW.id, NEW.account_id::bigint, CASE NEW.bucket WHEN 'subscription' THEN 0 ELSE 1 END,
          NEW.credits,
          CASE NEW.kind WHEN 'charge' THEN 0 ELSE 1 END, NEW.charge_id::uuid, NEW.output_index,
          NEW.refund_id, NEW.posted_at AT TIME ZONE 'UTC');
  RETURN NEW; END $$;
CREATE TRIGGER add_to_journal INSTEAD OF INSERT
    ON ledger_entries FOR EACH ROW EXECUTE FUNCTION add_to_journal();
CREATE FUNCTION keep_media() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$ BEGIN
  INSERT INTO /* the platform's */ media
  VALUES (NEW.id, NEW.charge_id::uuid, NEW.output_index, NEW.provider, NEW.provider_job_id,
          NEW.provider_output_index, NEW.project_id::uuid,
          NEW.node_id::uuid, NEW.uri, NEW.content_type, NEW.size_bytes, NEW.sha256,
          NEW.stored_at AT TIME ZONE 'UTC', NULL, NULL);
  RETURN NEW; END $$;
CREATE TRIGGER keep_media INSTEAD OF INSERT
    ON stored_outputs FOR EACH ROW EXECUTE FUNCTION keep_media();
CREATE FUNCTION put_back_media() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$ BEGIN
  UPDATE /* the platform's */ media
  SET run = NEW.charge_id::uuid, nth = NEW.output_index, board = NEW.project_id::uuid,
      cell = NEW.node_id::uuid
  WHERE media = OLD.id;
  RETURN NEW; END $$;
CREATE TRIGGER put_back_media INSTEAD OF UPDATE
    ON stored_outputs FOR EACH ROW EXECUTE FUNCTION put_back_media();
