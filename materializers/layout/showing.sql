-- What people read is of generation {id}: the same views as in {schema}_read, and as barriers for analysts. One whose
-- columns are others is made anew.

DO $$
DECLARE
  base regclass;
  name text;
BEGIN
  FOR base, name IN SELECT b.oid, b.relname FROM pg_class b
    JOIN pg_class r ON r.relname = b.relname AND r.relnamespace = '{schema}_read'::regnamespace
    WHERE b.relnamespace = '{schema}'::regnamespace ORDER BY b.relname
  LOOP
    BEGIN
      CALL serviceradar_base.isolate(base, 'serviceradar', true);
    EXCEPTION WHEN invalid_table_definition THEN
      EXECUTE format('DROP VIEW serviceradar.%I, serviceradar_analyst.%I', name, name);
      CALL serviceradar_base.isolate(base, 'serviceradar', true);
    END;
  END LOOP;
END $$;
UPDATE serviceradar_base.pipeline_generations SET shown = id = {id} WHERE shown <> (id = {id});
