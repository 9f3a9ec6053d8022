-- Generations of a part of the log: they can be looked at, and never take the place of the active one.

SET LOCAL ROLE serviceradar_writer;

ALTER TABLE serviceradar_base.pipeline_generations ADD COLUMN partial text;
COMMENT ON COLUMN serviceradar_base.pipeline_generations.partial IS 'Of which part of the log it is, and why it is never promoted; null where it is of all';
