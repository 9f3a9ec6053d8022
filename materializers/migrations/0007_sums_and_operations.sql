-- What tables come to, kept by the epochs that change them; and what operators did, as the log has it.

CREATE TABLE serviceradar_base.pipeline_hashes (
  tenant text COLLATE "C" NOT NULL,
  generation integer NOT NULL,
  table_name text COLLATE "C" NOT NULL,
  sums bytea NOT NULL,
  PRIMARY KEY (tenant, generation, table_name)
) WITH (fillfactor = 50);
-- Hashes cannot be compressed.
ALTER TABLE serviceradar_base.pipeline_hashes ALTER COLUMN sums SET STORAGE EXTERNAL;

CREATE TABLE serviceradar_base.pipeline_operations (
  id text COLLATE "C" NOT NULL,
  phase text COLLATE "C" NOT NULL CHECK (phase IN ('intent', 'done')),
  action text COLLATE "C" NOT NULL,
  tenant text COLLATE "C",
  actor text NOT NULL,
  detail jsonb NOT NULL,
  at timestamptz NOT NULL,
  PRIMARY KEY (id, phase)
);

-- Why a device shows what it shows hangs on the rules.
CREATE OR REPLACE VIEW serviceradar.pipeline_generations AS
  SELECT id, schema, state, fingerprint, started_at, promoted_at, rules FROM serviceradar_base.pipeline_generations;

COMMENT ON TABLE serviceradar_base.pipeline_hashes IS 'Sums of the hashes of a table''s rows, by buckets of their keys, as the epochs kept them';
COMMENT ON COLUMN serviceradar_base.pipeline_hashes.tenant IS 'The tenant';
COMMENT ON COLUMN serviceradar_base.pipeline_hashes.generation IS 'The generation';
COMMENT ON COLUMN serviceradar_base.pipeline_hashes.table_name IS 'devices, device_records, device_evidence';
COMMENT ON COLUMN serviceradar_base.pipeline_hashes.sums IS '1,024 sums of 8 bytes, little-endian';
COMMENT ON TABLE serviceradar_base.pipeline_operations IS 'What operators did: the topic system.operations, copied';
COMMENT ON COLUMN serviceradar_base.pipeline_operations.id IS 'Of the operation: its intent and its end have the same';
COMMENT ON COLUMN serviceradar_base.pipeline_operations.phase IS 'intent: written before; done: written after';
COMMENT ON COLUMN serviceradar_base.pipeline_operations.action IS 'truncate, restore, accept_gap, promote, rollback, remove_tenant, bound_intake';
COMMENT ON COLUMN serviceradar_base.pipeline_operations.tenant IS 'The tenant; null where it is of all';
COMMENT ON COLUMN serviceradar_base.pipeline_operations.actor IS 'Who did it';
COMMENT ON COLUMN serviceradar_base.pipeline_operations.detail IS 'What of: {topic/log partition: offsets}, fingerprints, rules';
COMMENT ON COLUMN serviceradar_base.pipeline_operations.at IS 'When it was written to the log';
