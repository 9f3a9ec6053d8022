-- Extensions, roles, schemas, and the functions that say whose rows a session may read.
-- Runs as the role that migrates; everything after it as serviceradar_writer.

CREATE EXTENSION IF NOT EXISTS pg_trgm;
CREATE EXTENSION IF NOT EXISTS btree_gin;
CREATE EXTENSION IF NOT EXISTS btree_gist;

-- TimescaleDB where the server has it loaded: the one place that asks for it is hypertable(), below.
-- A role that may not see what is loaded makes do without.
DO $$
BEGIN
  IF pg_has_role('pg_read_all_settings', 'MEMBER') THEN
    IF current_setting('shared_preload_libraries') LIKE '%timescaledb%'
       AND EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb') THEN
      CREATE EXTENSION IF NOT EXISTS timescaledb;
    END IF;
  END IF;
END $$;

-- Roles are the cluster's: another database of it may have made them, even in this moment.
DO $$
DECLARE
  role text;
BEGIN
  FOREACH role IN ARRAY ARRAY['serviceradar_writer', 'serviceradar_reader', 'serviceradar_analyst'] LOOP
    BEGIN
      IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
        EXECUTE format('CREATE ROLE %I NOLOGIN', role);
      END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;
    END;
  END LOOP;
  -- Whoever migrates may also write and read, as `run` and `demo` do.
  FOREACH role IN ARRAY ARRAY['serviceradar_writer', 'serviceradar_reader'] LOOP
    IF NOT pg_has_role(current_user, role, 'MEMBER') THEN
      EXECUTE format('GRANT %I TO %I', role, current_user);
    END IF;
  END LOOP;
END $$;

-- What readers may: connect, and nothing else. What they may read is granted view by view.
DO $$
DECLARE
  db text := current_database();
  role text;
BEGIN
  EXECUTE format('REVOKE CREATE, TEMPORARY ON DATABASE %I FROM PUBLIC', db);
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO serviceradar_reader, serviceradar_analyst', db);
  EXECUTE format('GRANT CONNECT, CREATE, TEMPORARY ON DATABASE %I TO serviceradar_writer', db);
  FOREACH role IN ARRAY ARRAY['serviceradar_reader', 'serviceradar_analyst'] LOOP
    EXECUTE format('ALTER ROLE %I IN DATABASE %I SET default_transaction_read_only = on', role, db);
    EXECUTE format('ALTER ROLE %I IN DATABASE %I SET statement_timeout = ''30s''', role, db);
    EXECUTE format('ALTER ROLE %I IN DATABASE %I SET search_path = serviceradar', role, db);
  END LOOP;
END $$;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

CREATE SCHEMA IF NOT EXISTS serviceradar AUTHORIZATION serviceradar_writer;
CREATE SCHEMA IF NOT EXISTS serviceradar_base AUTHORIZATION serviceradar_writer;
CREATE SCHEMA IF NOT EXISTS serviceradar_analyst AUTHORIZATION serviceradar_writer;
COMMENT ON SCHEMA serviceradar IS 'What people, dashboards and SRQL read: views of the active generation, each of one tenant';
COMMENT ON SCHEMA serviceradar_base IS 'Journals, progress and the fence: tables that belong to no generation; readers have no right on them';
COMMENT ON SCHEMA serviceradar_analyst IS 'The views of serviceradar as security barriers, for people who write SQL themselves';
GRANT USAGE ON SCHEMA serviceradar TO serviceradar_reader;
GRANT USAGE ON SCHEMA serviceradar_analyst TO serviceradar_analyst;

SET LOCAL ROLE serviceradar_writer;

CREATE FUNCTION serviceradar.tenant() RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
  -- A pooler leaves '' behind, where a session has none.
  tenant text := nullif(current_setting('serviceradar.tenant', true), '');
BEGIN
  IF tenant IS NULL THEN
    RAISE EXCEPTION 'this session has no tenant'
      USING ERRCODE = 'insufficient_privilege',
            HINT = 'SET serviceradar.tenant = ''...'' first: nothing is shown without one.';
  END IF;
  RETURN tenant;
END $$;
COMMENT ON FUNCTION serviceradar.tenant() IS 'The tenant of a session of serviceradar_reader: its setting serviceradar.tenant; an error where there is none';

CREATE TABLE serviceradar_base.analysts (
  login text COLLATE "C" PRIMARY KEY,
  tenant text COLLATE "C" NOT NULL
);
COMMENT ON TABLE serviceradar_base.analysts IS 'A login of a person who writes SQL, and the one tenant that it sees';
COMMENT ON COLUMN serviceradar_base.analysts.login IS 'The login role, a member of serviceradar_analyst';
COMMENT ON COLUMN serviceradar_base.analysts.tenant IS 'Its tenant';

-- SECURITY DEFINER: an analyst may not read who else there is. session_user: SET ROLE changes nothing.
CREATE FUNCTION serviceradar_analyst.tenant() RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE SET search_path = pg_catalog AS $$
DECLARE
  found text;
BEGIN
  SELECT a.tenant INTO found FROM serviceradar_base.analysts a WHERE a.login = session_user;
  IF found IS NULL THEN
    RAISE EXCEPTION 'login % has no tenant', session_user
      USING ERRCODE = 'insufficient_privilege',
            HINT = 'An operator adds it to serviceradar_base.analysts.';
  END IF;
  RETURN found;
END $$;
COMMENT ON FUNCTION serviceradar_analyst.tenant() IS 'The tenant of an analyst: that of the login, whatever the session sets';

-- Makes the isolating views of one base relation: for readers in a schema, for analysts if `barrier`.
CREATE PROCEDURE serviceradar_base.isolate(base regclass, reading text, barrier boolean)
LANGUAGE plpgsql AS $$
DECLARE
  name text := (SELECT relname FROM pg_class WHERE oid = base);
BEGIN
  EXECUTE format('CREATE OR REPLACE VIEW %I.%I AS SELECT * FROM %s WHERE tenant = (SELECT serviceradar.tenant())',
                 reading, name, base);
  EXECUTE format('GRANT SELECT ON %I.%I TO serviceradar_reader', reading, name);
  IF barrier THEN
    EXECUTE format('CREATE OR REPLACE VIEW serviceradar_analyst.%I WITH (security_barrier) AS '
                   'SELECT * FROM %s WHERE tenant = (SELECT serviceradar_analyst.tenant())', name, base);
    EXECUTE format('GRANT SELECT ON serviceradar_analyst.%I TO serviceradar_analyst', name);
  END IF;
END $$;
COMMENT ON PROCEDURE serviceradar_base.isolate(regclass, text, boolean) IS 'Makes the views by which one tenant''s rows of a base relation are read';

-- A hypertable where TimescaleDB is there, a plain table where it is not.
CREATE PROCEDURE serviceradar_base.hypertable(base regclass, time_column text, chunk interval)
LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
    PERFORM create_hypertable(base, time_column::name, chunk_time_interval => chunk, create_default_indexes => false);
  END IF;
END $$;
COMMENT ON PROCEDURE serviceradar_base.hypertable(regclass, text, interval) IS 'Makes a hypertable of a table where TimescaleDB is there';

-- Of two JSON objects: what the first says otherwise than the second.
CREATE FUNCTION serviceradar_base.changed_fields(one jsonb, other jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT jsonb_object_agg(f.key, f.value) FROM jsonb_each(one) f WHERE other -> f.key IS DISTINCT FROM f.value
$$;
COMMENT ON FUNCTION serviceradar_base.changed_fields(jsonb, jsonb) IS 'The fields of the first object that the second has otherwise';
