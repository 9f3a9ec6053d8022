-- The isolating views of generation {id}, for SRQL. Devices and records are read whole.

CREATE SCHEMA {schema}_read;
COMMENT ON SCHEMA {schema}_read IS 'What may be read of generation {id}: one tenant''s rows';
GRANT USAGE ON SCHEMA {schema}_read TO serviceradar_reader;
DO $$
DECLARE
  base regclass;
BEGIN
  FOR base IN SELECT c.oid FROM pg_class c WHERE c.relnamespace = '{schema}'::regnamespace AND c.relkind IN ('r', 'v')
    AND c.relname NOT IN ('device_summaries', 'device_details', 'record_summaries', 'record_attributes')
    ORDER BY c.relname
  LOOP
    CALL serviceradar_base.isolate(base, '{schema}_read', false);
  END LOOP;
END $$;
