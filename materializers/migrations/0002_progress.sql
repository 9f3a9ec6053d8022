-- Progress: which generation there is, who writes it, how far it is. One row each of what an epoch commits.

CREATE TABLE serviceradar_base.pipeline_generations (
  id integer PRIMARY KEY,
  schema text COLLATE "C" NOT NULL UNIQUE,
  state text COLLATE "C" NOT NULL CHECK (state IN ('building', 'ready', 'active', 'retired', 'failed')),
  fingerprint text COLLATE "C",
  rules jsonb,
  started_at timestamptz NOT NULL DEFAULT now(),
  promoted_at timestamptz
);
CREATE UNIQUE INDEX pipeline_generations_active ON serviceradar_base.pipeline_generations (state) WHERE state = 'active';

CREATE TABLE serviceradar_base.pipeline_writers (
  tenant text COLLATE "C" NOT NULL,
  generation integer NOT NULL,
  writer text COLLATE "C",
  token bigint NOT NULL,
  beat bigint NOT NULL,
  since timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant, generation)
) WITH (fillfactor = 50);

CREATE TABLE serviceradar_base.pipeline_frontiers (
  tenant text COLLATE "C" NOT NULL,
  generation integer NOT NULL,
  topic text COLLATE "C" NOT NULL,
  log_partition integer NOT NULL,
  next_offset bigint NOT NULL,
  intake_max timestamptz,
  epoch bigint NOT NULL,
  witness_offset bigint,
  witness_time timestamptz,
  witness_hash bigint,
  PRIMARY KEY (tenant, generation, topic, log_partition)
) WITH (fillfactor = 50);

CREATE TABLE serviceradar_base.pipeline_watermarks (
  tenant text COLLATE "C" NOT NULL,
  generation integer NOT NULL,
  partition text COLLATE "C" NOT NULL,
  at timestamptz NOT NULL,
  PRIMARY KEY (tenant, generation, partition)
) WITH (fillfactor = 50);

CREATE TABLE serviceradar_base.pipeline_epochs (
  tenant text COLLATE "C" NOT NULL,
  generation integer NOT NULL,
  epoch bigint NOT NULL,
  closed_at timestamptz NOT NULL,
  committed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  frontiers jsonb NOT NULL,
  intake_max timestamptz,
  records bigint NOT NULL,
  changes bigint NOT NULL,
  PRIMARY KEY (tenant, generation, epoch)
);

CREATE TABLE serviceradar_base.pipeline_refusals (
  tenant text COLLATE "C" NOT NULL,
  generation integer NOT NULL,
  topic text COLLATE "C" NOT NULL,
  log_partition integer NOT NULL,
  log_offset bigint NOT NULL,
  reason text NOT NULL,
  epoch bigint NOT NULL,
  at timestamptz NOT NULL,
  PRIMARY KEY (tenant, generation, topic, log_partition, log_offset)
);

CREATE TABLE serviceradar_base.pipeline_outbox (
  tenant text COLLATE "C" NOT NULL,
  generation integer NOT NULL,
  epoch bigint NOT NULL,
  seq bigint NOT NULL,
  stream text COLLATE "C" NOT NULL,
  key bytea,
  value bytea,
  header_names text[] NOT NULL,
  header_values bytea[] NOT NULL,
  PRIMARY KEY (tenant, generation, epoch, seq)
);

CREATE TABLE serviceradar_base.view_changes (
  tenant text COLLATE "C" NOT NULL,
  generation integer NOT NULL,
  epoch bigint NOT NULL,
  seq integer NOT NULL,
  entity text COLLATE "C" NOT NULL,
  seen_only boolean NOT NULL,
  keys text[] NOT NULL,
  at timestamptz NOT NULL,
  PRIMARY KEY (tenant, generation, epoch, seq)
);
CREATE INDEX view_changes_at ON serviceradar_base.view_changes (tenant, generation, at);

COMMENT ON TABLE serviceradar_base.pipeline_generations IS 'A build of the views';
COMMENT ON COLUMN serviceradar_base.pipeline_generations.id IS 'Its number';
COMMENT ON COLUMN serviceradar_base.pipeline_generations.schema IS 'The schema of its base tables';
COMMENT ON COLUMN serviceradar_base.pipeline_generations.state IS 'building, ready, active (one), retired (its schema is dropped), failed';
COMMENT ON COLUMN serviceradar_base.pipeline_generations.fingerprint IS 'SHA-256 of layout, identity and normaliser versions and rules; null until a writer takes it first';
COMMENT ON COLUMN serviceradar_base.pipeline_generations.rules IS 'The rules, every default filled in';
COMMENT ON COLUMN serviceradar_base.pipeline_generations.started_at IS 'When it was made';
COMMENT ON COLUMN serviceradar_base.pipeline_generations.promoted_at IS 'When it became the active one';
COMMENT ON TABLE serviceradar_base.pipeline_writers IS 'The fence: who may write a tenant''s views';
COMMENT ON COLUMN serviceradar_base.pipeline_writers.tenant IS 'The tenant';
COMMENT ON COLUMN serviceradar_base.pipeline_writers.generation IS 'The generation';
COMMENT ON COLUMN serviceradar_base.pipeline_writers.writer IS 'Name of the process that writes; null when it has left';
COMMENT ON COLUMN serviceradar_base.pipeline_writers.token IS 'Rises with each taking; a transaction with an older one changes nothing';
COMMENT ON COLUMN serviceradar_base.pipeline_writers.beat IS 'Rises while the writer lives';
COMMENT ON COLUMN serviceradar_base.pipeline_writers.since IS 'When it was taken';
COMMENT ON TABLE serviceradar_base.pipeline_frontiers IS 'How far a log partition is in the views';
COMMENT ON COLUMN serviceradar_base.pipeline_frontiers.tenant IS 'The tenant';
COMMENT ON COLUMN serviceradar_base.pipeline_frontiers.generation IS 'The generation';
COMMENT ON COLUMN serviceradar_base.pipeline_frontiers.topic IS 'The topic';
COMMENT ON COLUMN serviceradar_base.pipeline_frontiers.log_partition IS 'The log partition';
COMMENT ON COLUMN serviceradar_base.pipeline_frontiers.next_offset IS 'The next offset not yet in the views';
COMMENT ON COLUMN serviceradar_base.pipeline_frontiers.intake_max IS 'Running maximum of append times below it';
COMMENT ON COLUMN serviceradar_base.pipeline_frontiers.epoch IS 'The epoch that moved it last';
COMMENT ON COLUMN serviceradar_base.pipeline_frontiers.witness_offset IS 'Offset of the last record read';
COMMENT ON COLUMN serviceradar_base.pipeline_frontiers.witness_time IS 'Its append time';
COMMENT ON COLUMN serviceradar_base.pipeline_frontiers.witness_hash IS 'Its hash: first 8 bytes of the SHA-256 of key and value';
COMMENT ON TABLE serviceradar_base.pipeline_watermarks IS 'How far event time has come';
COMMENT ON COLUMN serviceradar_base.pipeline_watermarks.tenant IS 'The tenant';
COMMENT ON COLUMN serviceradar_base.pipeline_watermarks.generation IS 'The generation';
COMMENT ON COLUMN serviceradar_base.pipeline_watermarks.partition IS 'The partition; empty for the tenant''s last TICK';
COMMENT ON COLUMN serviceradar_base.pipeline_watermarks.at IS 'Greatest event time, not rounded';
COMMENT ON TABLE serviceradar_base.pipeline_epochs IS 'A committed epoch; the last 10,000, before them one a minute for 30 days and one an hour for ever';
COMMENT ON COLUMN serviceradar_base.pipeline_epochs.tenant IS 'The tenant';
COMMENT ON COLUMN serviceradar_base.pipeline_epochs.generation IS 'The generation';
COMMENT ON COLUMN serviceradar_base.pipeline_epochs.epoch IS 'Its number';
COMMENT ON COLUMN serviceradar_base.pipeline_epochs.closed_at IS 'When its input was closed';
COMMENT ON COLUMN serviceradar_base.pipeline_epochs.committed_at IS 'When it was written';
COMMENT ON COLUMN serviceradar_base.pipeline_epochs.frontiers IS 'The frontiers that it moved: {topic/log partition: next offset}';
COMMENT ON COLUMN serviceradar_base.pipeline_epochs.intake_max IS 'Greatest intake time in it';
COMMENT ON COLUMN serviceradar_base.pipeline_epochs.records IS 'Events read for it';
COMMENT ON COLUMN serviceradar_base.pipeline_epochs.changes IS 'Rows that it changed';
COMMENT ON TABLE serviceradar_base.pipeline_refusals IS 'An event that could not be read: it is in the dead letters, and here is why';
COMMENT ON COLUMN serviceradar_base.pipeline_refusals.tenant IS 'The tenant';
COMMENT ON COLUMN serviceradar_base.pipeline_refusals.generation IS 'The generation';
COMMENT ON COLUMN serviceradar_base.pipeline_refusals.topic IS 'Where it stands';
COMMENT ON COLUMN serviceradar_base.pipeline_refusals.log_partition IS 'Where it stands';
COMMENT ON COLUMN serviceradar_base.pipeline_refusals.log_offset IS 'Where it stands';
COMMENT ON COLUMN serviceradar_base.pipeline_refusals.reason IS 'Why it was refused';
COMMENT ON COLUMN serviceradar_base.pipeline_refusals.epoch IS 'The epoch that refused it';
COMMENT ON COLUMN serviceradar_base.pipeline_refusals.at IS 'When';
COMMENT ON TABLE serviceradar_base.pipeline_outbox IS 'What is to be published after the commit';
COMMENT ON COLUMN serviceradar_base.pipeline_outbox.tenant IS 'The tenant';
COMMENT ON COLUMN serviceradar_base.pipeline_outbox.generation IS 'The generation';
COMMENT ON COLUMN serviceradar_base.pipeline_outbox.epoch IS 'The epoch that wrote it';
COMMENT ON COLUMN serviceradar_base.pipeline_outbox.seq IS 'Its place in the epoch';
COMMENT ON COLUMN serviceradar_base.pipeline_outbox.stream IS 'The stream that it goes to';
COMMENT ON COLUMN serviceradar_base.pipeline_outbox.key IS 'Key of the event';
COMMENT ON COLUMN serviceradar_base.pipeline_outbox.value IS 'Value of the event; null is a tombstone';
COMMENT ON COLUMN serviceradar_base.pipeline_outbox.header_names IS 'Names of its headers';
COMMENT ON COLUMN serviceradar_base.pipeline_outbox.header_values IS 'Values of its headers, in the same order';
COMMENT ON TABLE serviceradar_base.view_changes IS 'Keys that an epoch changed, many in a row; kept for an hour';
COMMENT ON COLUMN serviceradar_base.view_changes.tenant IS 'The tenant';
COMMENT ON COLUMN serviceradar_base.view_changes.generation IS 'The generation';
COMMENT ON COLUMN serviceradar_base.view_changes.epoch IS 'The epoch';
COMMENT ON COLUMN serviceradar_base.view_changes.seq IS 'Number of the row in the epoch';
COMMENT ON COLUMN serviceradar_base.view_changes.entity IS 'The view';
COMMENT ON COLUMN serviceradar_base.view_changes.seen_only IS 'Whether only sightings changed';
COMMENT ON COLUMN serviceradar_base.view_changes.keys IS 'The keys; of several columns, joined by blanks';
COMMENT ON COLUMN serviceradar_base.view_changes.at IS 'When the epoch was closed';

-- A key a row, for whoever follows the views.
CREATE VIEW serviceradar.view_changes AS
  SELECT c.tenant, c.generation, c.epoch, c.entity, k.key, c.seen_only, c.at
  FROM serviceradar_base.view_changes c CROSS JOIN LATERAL unnest(c.keys) AS k (key)
  WHERE c.tenant = (SELECT serviceradar.tenant());
GRANT SELECT ON serviceradar.view_changes TO serviceradar_reader;

CALL serviceradar_base.isolate('serviceradar_base.pipeline_frontiers', 'serviceradar', true);
CALL serviceradar_base.isolate('serviceradar_base.pipeline_watermarks', 'serviceradar', true);
CALL serviceradar_base.isolate('serviceradar_base.pipeline_epochs', 'serviceradar', true);
CALL serviceradar_base.isolate('serviceradar_base.pipeline_refusals', 'serviceradar', true);

CREATE VIEW serviceradar.pipeline_generations AS
  SELECT id, schema, state, fingerprint, started_at, promoted_at FROM serviceradar_base.pipeline_generations;
GRANT SELECT ON serviceradar.pipeline_generations TO serviceradar_reader;
