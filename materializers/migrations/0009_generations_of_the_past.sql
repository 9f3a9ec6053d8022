-- Generations of the past: tables that are filled with a tenant's inventory of a moment, and never written again.

ALTER TABLE serviceradar_base.pipeline_generations
  ADD COLUMN of_tenant text COLLATE "C",
  ADD COLUMN moment text COLLATE "C";
ALTER TABLE serviceradar_base.pipeline_generations DROP CONSTRAINT pipeline_generations_state_check;
ALTER TABLE serviceradar_base.pipeline_generations ADD CONSTRAINT pipeline_generations_state_check
  CHECK (state IN ('building', 'ready', 'active', 'retired', 'failed')
         OR state IN ('filling', 'past') AND of_tenant IS NOT NULL AND moment IS NOT NULL);

COMMENT ON COLUMN serviceradar_base.pipeline_generations.state IS 'building, ready, active (one), retired (its schema is dropped), failed; of the past: filling, past (filled)';
COMMENT ON COLUMN serviceradar_base.pipeline_generations.of_tenant IS 'Of one of the past: the tenant whose inventory it has; null of others';
COMMENT ON COLUMN serviceradar_base.pipeline_generations.moment IS 'Of one of the past: the event time or intake time of its inventory; null of others';
