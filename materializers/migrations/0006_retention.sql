-- Retention: one place knows whether a table is a hypertable, and how its old rows go.

CREATE PROCEDURE serviceradar_base.drop_before(base regclass, time_column text, before timestamptz)
LANGUAGE plpgsql AS $$
DECLARE
  chunked boolean := false;
BEGIN
  -- The extension may have come after the table.
  IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
    SELECT EXISTS (SELECT FROM timescaledb_information.hypertables
                   WHERE format('%I.%I', hypertable_schema, hypertable_name)::regclass = base) INTO chunked;
  END IF;
  IF chunked THEN
    PERFORM drop_chunks(base, older_than => before);
  ELSE
    EXECUTE format('DELETE FROM %s WHERE %I < $1', base, time_column) USING before;
  END IF;
END $$;
COMMENT ON PROCEDURE serviceradar_base.drop_before(regclass, text, timestamptz) IS
  'Deletes rows before a time; of a hypertable the chunks that lie wholly before it';
