-- Shows and takes times as whole microseconds since 1970, as SQLite stores them, so that the
-- worlds' deeds and checks are written once. For sessions whose search path begins with this
-- schema.
--
-- Each relation in public that has a timestamptz gets a view of its name here, with the same
-- columns in the same order. The platform's tables take INSERT, and the two UPDATEs and the DELETE
-- that the platform makes. Relations without times (balances, accounts) are found in public, where
-- they are written and locked directly. Run once in a new database, after makegood's migrations.
-- makegood finds nothing here.

CREATE SCHEMA micros;

CREATE FUNCTION micros.instant(micros bigint) RETURNS timestamptz LANGUAGE sql
    RETURN timestamptz 'epoch' + micros * interval '1 microsecond';

-- As SQLite's, for the two formats that the story of an item has.
CREATE FUNCTION micros.printf(template text, number numeric) RETURNS text LANGUAGE sql
    RETURN replace(replace(template, '%7.1f', lpad(round(number, 1)::text, 7)), '%.1f',
                   round(number, 1)::text);

DO $$
DECLARE
    relation record;
BEGIN
    FOR relation IN
        SELECT c.relname AS name,
               string_agg(CASE WHEN a.atttypid = 'timestamptz'::regtype
                               THEN format('(extract(epoch FROM %1$I) * 1000000)::bigint AS %1$I',
                                           a.attname)
                               ELSE quote_ident(a.attname) END, ', ' ORDER BY a.attnum) AS shown,
               string_agg(format(CASE WHEN a.atttypid = 'timestamptz'::regtype
                                 THEN 'micros.instant(NEW.%I)' ELSE 'NEW.%I' END,
                                 a.attname), ', ' ORDER BY a.attnum) AS taken
        FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v')
        GROUP BY c.oid, c.relname
        HAVING bool_or(a.atttypid = 'timestamptz'::regtype)
    LOOP
        EXECUTE format('CREATE VIEW micros.%1$I AS SELECT %2$s FROM public.%1$I', relation.name,
                       relation.shown);
        IF relation.name IN ('charges', 'charge_items', 'stored_outputs', 'ledger_entries') THEN
            EXECUTE format('CREATE FUNCTION micros.insert_%1$s() RETURNS trigger
                            LANGUAGE plpgsql AS $f$ BEGIN
                                INSERT INTO public.%1$I VALUES (%2$s);
                                RETURN NEW; END $f$', relation.name, relation.taken);
            EXECUTE format('CREATE TRIGGER insert_%1$s INSTEAD OF INSERT ON micros.%1$I
                                FOR EACH ROW EXECUTE FUNCTION micros.insert_%1$s()', relation.name);
        END IF;
    END LOOP;
END
$$;

CREATE FUNCTION micros.cancel() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE public.charges SET cancelled_at = micros.instant(NEW.cancelled_at) WHERE id = OLD.id;
    RETURN NEW;
END
$$;
CREATE TRIGGER cancel INSTEAD OF UPDATE
    ON micros.charges FOR EACH ROW EXECUTE FUNCTION micros.cancel();

CREATE FUNCTION micros.fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE public.charge_items SET failed_at = micros.instant(NEW.failed_at)
    WHERE charge_id = OLD.charge_id AND output_index = OLD.output_index;
    RETURN NEW;
END
$$;
CREATE TRIGGER fail INSTEAD OF UPDATE
    ON micros.charge_items FOR EACH ROW EXECUTE FUNCTION micros.fail();

CREATE FUNCTION micros.lose() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM public.stored_outputs WHERE id = OLD.id;
    RETURN OLD;
END
$$;
CREATE TRIGGER lose INSTEAD OF DELETE
    ON micros.stored_outputs FOR EACH ROW EXECUTE FUNCTION micros.lose();
