-- Rollback at once: a generation is read before it has caught up with the one whose place it took.

SET LOCAL ROLE serviceradar_writer;

CREATE TABLE serviceradar_base.pipeline_untold (
  tenant text COLLATE "C" NOT NULL,
  generation integer NOT NULL,
  told integer NOT NULL,
  PRIMARY KEY (tenant, generation)
);

COMMENT ON TABLE serviceradar_base.pipeline_untold IS 'A tenant of a generation that took its place at once: nothing goes into journals or outbox until the difference was told';
COMMENT ON COLUMN serviceradar_base.pipeline_untold.tenant IS 'The tenant';
COMMENT ON COLUMN serviceradar_base.pipeline_untold.generation IS 'The generation, the active one';
COMMENT ON COLUMN serviceradar_base.pipeline_untold.told IS 'The generation that journals and consumers know; it stays as it is until then';
