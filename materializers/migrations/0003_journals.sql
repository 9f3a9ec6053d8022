-- Journals: what was believed, and when. Kept, not rebuilt; written by the active generation alone.

CREATE TABLE serviceradar_base.device_history (
  tenant text COLLATE "C" NOT NULL,
  uid uuid NOT NULL,
  generation integer NOT NULL,
  epoch bigint NOT NULL,
  at timestamptz NOT NULL,
  change text COLLATE "C" NOT NULL,
  before jsonb,
  after jsonb,
  cause text NOT NULL,
  PRIMARY KEY (tenant, uid, generation, epoch, at)
);
CREATE TABLE serviceradar_base.device_merges (
  tenant text COLLATE "C" NOT NULL,
  generation integer NOT NULL,
  epoch bigint NOT NULL,
  from_uid uuid NOT NULL,
  to_uid uuid NOT NULL,
  at timestamptz NOT NULL,
  kind text COLLATE "C" NOT NULL,
  claim text,
  rule text COLLATE "C" NOT NULL,
  records text[] NOT NULL,
  PRIMARY KEY (tenant, generation, epoch, from_uid, to_uid, at)
);
CREATE INDEX device_merges_to ON serviceradar_base.device_merges (tenant, to_uid, at);
CREATE INDEX device_merges_from ON serviceradar_base.device_merges (tenant, from_uid, at);

COMMENT ON TABLE serviceradar_base.device_history IS 'A change of a device, not of sightings alone';
COMMENT ON COLUMN serviceradar_base.device_history.tenant IS 'The tenant';
COMMENT ON COLUMN serviceradar_base.device_history.uid IS 'The device';
COMMENT ON COLUMN serviceradar_base.device_history.generation IS 'The generation that believed so';
COMMENT ON COLUMN serviceradar_base.device_history.epoch IS 'The epoch';
COMMENT ON COLUMN serviceradar_base.device_history.at IS 'When the epoch was closed';
COMMENT ON COLUMN serviceradar_base.device_history.change IS 'created, merged, split, changed, retired, forgotten';
COMMENT ON COLUMN serviceradar_base.device_history.before IS 'The fields that changed, as they were; of what is no more, all';
COMMENT ON COLUMN serviceradar_base.device_history.after IS 'The fields that changed, as they became; of what is new, those it is known by';
COMMENT ON COLUMN serviceradar_base.device_history.cause IS 'The claims or records that caused it';
COMMENT ON TABLE serviceradar_base.device_merges IS 'A merge or a split: records that went from one uid to another';
COMMENT ON COLUMN serviceradar_base.device_merges.tenant IS 'The tenant';
COMMENT ON COLUMN serviceradar_base.device_merges.generation IS 'The generation that believed so';
COMMENT ON COLUMN serviceradar_base.device_merges.epoch IS 'The epoch';
COMMENT ON COLUMN serviceradar_base.device_merges.from_uid IS 'The uid that the records had';
COMMENT ON COLUMN serviceradar_base.device_merges.to_uid IS 'The uid that they have now';
COMMENT ON COLUMN serviceradar_base.device_merges.at IS 'When the epoch was closed';
COMMENT ON COLUMN serviceradar_base.device_merges.kind IS 'merge or split';
COMMENT ON COLUMN serviceradar_base.device_merges.claim IS 'A claim by which they hang together, namespace:value';
COMMENT ON COLUMN serviceradar_base.device_merges.rule IS 'The rule that did it';
COMMENT ON COLUMN serviceradar_base.device_merges.records IS 'The records that moved, at most 100';

CALL serviceradar_base.hypertable('serviceradar_base.device_history', 'at', '7 days');
CALL serviceradar_base.hypertable('serviceradar_base.device_merges', 'at', '7 days');
CALL serviceradar_base.isolate('serviceradar_base.device_history', 'serviceradar', true);
CALL serviceradar_base.isolate('serviceradar_base.device_merges', 'serviceradar', true);
