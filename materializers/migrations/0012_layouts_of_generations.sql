-- Which layout the tables of a generation have: whoever has another does not take it, even where nobody has written it yet.

SET LOCAL ROLE serviceradar_writer;

-- In the order of those who read it: the view, and then what it is of.
LOCK TABLE serviceradar.pipeline_generations IN ACCESS EXCLUSIVE MODE;
ALTER TABLE serviceradar_base.pipeline_generations ADD COLUMN layout integer;
COMMENT ON COLUMN serviceradar_base.pipeline_generations.layout IS 'Version of the layout of its tables; null where they were made before migration 12';

CREATE OR REPLACE VIEW serviceradar.pipeline_generations AS
  SELECT id, schema, state, fingerprint, started_at, promoted_at, rules, layout FROM serviceradar_base.pipeline_generations;
