-- Generations beside the active one: a writer that is asked to stop so that another generation can take its place, and
-- who stands by.

CREATE TABLE serviceradar_base.pipeline_stops (
  tenant text COLLATE "C" NOT NULL,
  generation integer NOT NULL,
  wanted jsonb NOT NULL,
  asked_at timestamptz NOT NULL DEFAULT now(),
  epoch bigint,
  PRIMARY KEY (tenant, generation)
);

CREATE TABLE serviceradar_base.pipeline_stand_bys (
  tenant text COLLATE "C" NOT NULL,
  generation integer NOT NULL,
  writer text COLLATE "C" NOT NULL,
  epoch bigint NOT NULL,
  seen_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant, generation, writer)
) WITH (fillfactor = 50);

ALTER TABLE serviceradar_base.pipeline_generations ADD COLUMN shown boolean NOT NULL DEFAULT false;
UPDATE serviceradar_base.pipeline_generations SET shown = state = 'active';

COMMENT ON TABLE serviceradar_base.pipeline_stops IS 'A writer is asked to stop, so that another generation takes the place of its own';
COMMENT ON COLUMN serviceradar_base.pipeline_stops.tenant IS 'The tenant';
COMMENT ON COLUMN serviceradar_base.pipeline_stops.generation IS 'The generation that it writes';
COMMENT ON COLUMN serviceradar_base.pipeline_stops.wanted IS 'Where it stops at the earliest: {topic/log partition: next offset}';
COMMENT ON COLUMN serviceradar_base.pipeline_stops.asked_at IS 'When it was asked';
COMMENT ON COLUMN serviceradar_base.pipeline_stops.epoch IS 'Where it stopped: its last epoch; null until then';
COMMENT ON TABLE serviceradar_base.pipeline_stand_bys IS 'Who stands by for a writer';
COMMENT ON COLUMN serviceradar_base.pipeline_stand_bys.tenant IS 'The tenant';
COMMENT ON COLUMN serviceradar_base.pipeline_stand_bys.generation IS 'The generation';
COMMENT ON COLUMN serviceradar_base.pipeline_stand_bys.writer IS 'Its name';
COMMENT ON COLUMN serviceradar_base.pipeline_stand_bys.epoch IS 'How far it has followed';
COMMENT ON COLUMN serviceradar_base.pipeline_stand_bys.seen_at IS 'When it said so';
COMMENT ON COLUMN serviceradar_base.pipeline_generations.shown IS 'Whether the views that people read are of it; they follow the active one';
