-- Base tables of a generation, in its own schema (the search path). No secondary indexes: see indexes.sql.
-- Every sighting rewrites a row of device_summaries and one of record_summaries: they are narrow, and room is left
-- in their pages. What a sighting leaves as it is stands apart: in device_details and record_attributes because it
-- is wide, in device_search because its indexes are dear to write. The views devices and device_records show a whole.

CREATE TABLE device_summaries (
  tenant text COLLATE "C" NOT NULL,
  uid uuid NOT NULL,
  partition text COLLATE "C" NOT NULL,
  name text,
  hostname text COLLATE "C",
  ip inet,
  mac text COLLATE "C",
  type text COLLATE "C" NOT NULL,
  type_id integer NOT NULL,
  vendor_name text,
  model text,
  risk_score integer,
  risk_level text COLLATE "C",
  risk_level_id integer,
  is_available boolean,
  availability_at timestamptz,
  discovery_sources text[] NOT NULL,
  confidence text COLLATE "C" NOT NULL,
  state text COLLATE "C" NOT NULL,
  first_seen timestamptz NOT NULL,
  last_seen timestamptz,
  last_seen_period timestamptz,
  agent_id text,
  gateway_id text,
  site text,
  records integer NOT NULL,
  flags text[] NOT NULL,
  modified_at timestamptz NOT NULL,
  epoch bigint NOT NULL,
  PRIMARY KEY (tenant, uid)
) WITH (fillfactor = 50);

CREATE TABLE device_details (
  tenant text COLLATE "C" NOT NULL,
  uid uuid NOT NULL,
  os jsonb,
  hw_info jsonb NOT NULL,
  network_interfaces jsonb NOT NULL,
  tags jsonb NOT NULL,
  metadata jsonb NOT NULL,
  PRIMARY KEY (tenant, uid)
);

CREATE TABLE device_search (
  tenant text COLLATE "C" NOT NULL,
  uid uuid NOT NULL,
  words text NOT NULL,
  addresses text NOT NULL,
  name text,
  hostname text COLLATE "C",
  ip inet,
  type text COLLATE "C" NOT NULL,
  vendor_name text,
  site text,
  state text COLLATE "C" NOT NULL,
  discovery_sources text[] NOT NULL,
  PRIMARY KEY (tenant, uid) INCLUDE (name, state)
);

CREATE TABLE record_summaries (
  tenant text COLLATE "C" NOT NULL,
  record_key text COLLATE "C" NOT NULL,
  partition text COLLATE "C" NOT NULL,
  source_kind text COLLATE "C" NOT NULL,
  source_instance text COLLATE "C" NOT NULL,
  native_key text COLLATE "C" NOT NULL,
  uid uuid,
  placement text COLLATE "C" NOT NULL,
  open boolean NOT NULL,
  first_seen timestamptz,
  last_seen timestamptz,
  first_asserted timestamptz,
  probe_up boolean,
  probe_at timestamptz,
  collector_agent text,
  collector_gateway text,
  collector_address text,
  first_snapshot_begin timestamptz,
  last_snapshot_begin timestamptz,
  place inet,
  place_time timestamptz,
  place_hash bigint,
  assert_time timestamptz,
  assert_hash bigint,
  assert_event_time timestamptz,
  full_time timestamptz,
  full_hash bigint,
  full_event_time timestamptz,
  end_time timestamptz,
  end_hash bigint,
  PRIMARY KEY (tenant, record_key) INCLUDE (uid)
) WITH (fillfactor = 50);

CREATE TABLE record_attributes (
  tenant text COLLATE "C" NOT NULL,
  record_key text COLLATE "C" NOT NULL,
  attributes jsonb NOT NULL,
  PRIMARY KEY (tenant, record_key)
);

CREATE TABLE device_evidence (
  tenant text COLLATE "C" NOT NULL,
  record_key text COLLATE "C" NOT NULL,
  namespace text COLLATE "C" NOT NULL,
  value text COLLATE "C" NOT NULL,
  claim_uid uuid,
  ip inet,
  state text COLLATE "C" NOT NULL,
  leads boolean NOT NULL,
  first_seen timestamptz NOT NULL,
  first_asserted timestamptz NOT NULL,
  last_time timestamptz,
  last_hash bigint,
  last_seen timestamptz,
  PRIMARY KEY (tenant, record_key, namespace, value)
);

CREATE TABLE identity_issues (
  tenant text COLLATE "C" NOT NULL,
  partition text COLLATE "C" NOT NULL,
  kind text COLLATE "C" NOT NULL,
  namespace text COLLATE "C" NOT NULL,
  value text COLLATE "C" NOT NULL,
  uids uuid[] NOT NULL,
  detail text NOT NULL,
  PRIMARY KEY (tenant, partition, kind, namespace, value)
);

CREATE TABLE device_counts (
  tenant text COLLATE "C" NOT NULL,
  partition text COLLATE "C" NOT NULL,
  dimension text COLLATE "C" NOT NULL,
  value text COLLATE "C" NOT NULL,
  devices bigint NOT NULL,
  available bigint NOT NULL,
  unavailable bigint NOT NULL,
  unknown bigint NOT NULL,
  PRIMARY KEY (tenant, partition, dimension, value)
) WITH (fillfactor = 50);

CREATE TABLE decisions (
  tenant text COLLATE "C" NOT NULL,
  id text COLLATE "C" NOT NULL,
  partition text COLLATE "C" NOT NULL,
  action text COLLATE "C" NOT NULL,
  target jsonb NOT NULL,
  value text,
  revokes text COLLATE "C",
  in_force boolean NOT NULL,
  actor text NOT NULL,
  reason text NOT NULL,
  at timestamptz NOT NULL,
  PRIMARY KEY (tenant, id)
);

CREATE TABLE snapshots (
  tenant text COLLATE "C" NOT NULL,
  partition text COLLATE "C" NOT NULL,
  source_kind text COLLATE "C" NOT NULL,
  source_instance text COLLATE "C" NOT NULL,
  begin timestamptz NOT NULL,
  id text COLLATE "C" NOT NULL,
  counted bigint,
  members bigint,
  ended_at timestamptz,
  verdict text COLLATE "C",
  detail text NOT NULL,
  PRIMARY KEY (tenant, partition, source_kind, source_instance, begin)
);

CREATE TABLE snapshot_members (
  tenant text COLLATE "C" NOT NULL,
  partition text COLLATE "C" NOT NULL,
  source_kind text COLLATE "C" NOT NULL,
  source_instance text COLLATE "C" NOT NULL,
  begin timestamptz NOT NULL,
  record_key text COLLATE "C" NOT NULL,
  PRIMARY KEY (tenant, partition, source_kind, source_instance, begin, record_key)
);

-- Nobody searches by these: figures of theirs would take longest to gather.
ALTER TABLE device_details
  ALTER COLUMN os SET STATISTICS 0,
  ALTER COLUMN hw_info SET STATISTICS 0,
  ALTER COLUMN network_interfaces SET STATISTICS 0,
  ALTER COLUMN tags SET STATISTICS 0,
  ALTER COLUMN metadata SET STATISTICS 0;
-- How many devices have a word: one in a thousand is told from one in ten thousand.
ALTER TABLE device_search ALTER COLUMN words SET STATISTICS 1000;
ALTER TABLE record_attributes ALTER COLUMN attributes SET STATISTICS 0;

COMMENT ON TABLE device_summaries IS 'A device now, as lists show it and sort and filter by';
COMMENT ON COLUMN device_summaries.tenant IS 'The tenant';
COMMENT ON COLUMN device_summaries.uid IS 'Stable public id, shown as sr:<uuid>';
COMMENT ON COLUMN device_summaries.partition IS 'The network in which its addresses mean one thing';
COMMENT ON COLUMN device_summaries.name IS 'Name shown: the host name where no source names it';
COMMENT ON COLUMN device_summaries.hostname IS 'Host name, lower case, no trailing dot';
COMMENT ON COLUMN device_summaries.ip IS 'The winner among its current addresses';
COMMENT ON COLUMN device_summaries.mac IS 'The first of its current MACs';
COMMENT ON COLUMN device_summaries.type IS 'OCSF device type';
COMMENT ON COLUMN device_summaries.type_id IS 'OCSF device type id';
COMMENT ON COLUMN device_summaries.vendor_name IS 'Manufacturer';
COMMENT ON COLUMN device_summaries.model IS 'Model';
COMMENT ON COLUMN device_summaries.risk_score IS '0 to 100';
COMMENT ON COLUMN device_summaries.risk_level IS 'Info, Low, Medium, High, Critical';
COMMENT ON COLUMN device_summaries.risk_level_id IS '0 to 4';
COMMENT ON COLUMN device_summaries.is_available IS 'Whether it answered; null is unknown';
COMMENT ON COLUMN device_summaries.availability_at IS 'When that was found';
COMMENT ON COLUMN device_summaries.discovery_sources IS 'Kinds of its sources, sorted';
COMMENT ON COLUMN device_summaries.confidence IS 'authoritative (a tier 1 claim), corroborated (MACs alone), provisional (an address alone)';
COMMENT ON COLUMN device_summaries.state IS 'active, stale, retired';
COMMENT ON COLUMN device_summaries.first_seen IS 'Earliest sighting of its own records';
COMMENT ON COLUMN device_summaries.last_seen IS 'Latest sighting, attached records included';
COMMENT ON COLUMN device_summaries.last_seen_period IS 'Bookkeeping: the ten seconds that last_seen is in; sorts by last_seen go by it first';
COMMENT ON COLUMN device_summaries.agent_id IS 'Agent of the latest sighting';
COMMENT ON COLUMN device_summaries.gateway_id IS 'Gateway of the latest sighting';
COMMENT ON COLUMN device_summaries.site IS 'Site';
COMMENT ON COLUMN device_summaries.records IS 'Records that make it up, attached ones included';
COMMENT ON COLUMN device_summaries.flags IS 'cut (its records say more than fits), rekeyed; sorted';
COMMENT ON COLUMN device_summaries.modified_at IS 'Bookkeeping: when the epoch that wrote it last was closed';
COMMENT ON COLUMN device_summaries.epoch IS 'Bookkeeping: the epoch that wrote it last';
COMMENT ON TABLE device_details IS 'What the page of a device shows besides, apart from what every sighting rewrites';
COMMENT ON COLUMN device_details.tenant IS 'The tenant';
COMMENT ON COLUMN device_details.uid IS 'The device';
COMMENT ON COLUMN device_details.os IS 'Operating system: {name, version}';
COMMENT ON COLUMN device_details.hw_info IS 'Hardware: {serial_number, ...}';
COMMENT ON COLUMN device_details.network_interfaces IS 'Current addresses and MACs: [{ip, mac, name}]';
COMMENT ON COLUMN device_details.tags IS 'Tags: {key: value}';
COMMENT ON COLUMN device_details.metadata IS 'All other attributes: {key: value}';
COMMENT ON TABLE device_search IS 'What searches of devices go by, apart from what every sighting rewrites';
COMMENT ON COLUMN device_search.tenant IS 'The tenant';
COMMENT ON COLUMN device_search.uid IS 'The device';
COMMENT ON COLUMN device_search.words IS 'Its text fields but for its address and MAC, lower case, a line each';
COMMENT ON COLUMN device_search.addresses IS 'Its address and its MAC, lower case, a line each';
COMMENT ON COLUMN device_search.name IS 'As in devices';
COMMENT ON COLUMN device_search.hostname IS 'As in devices';
COMMENT ON COLUMN device_search.ip IS 'As in devices';
COMMENT ON COLUMN device_search.type IS 'As in devices';
COMMENT ON COLUMN device_search.vendor_name IS 'As in devices';
COMMENT ON COLUMN device_search.site IS 'As in devices';
COMMENT ON COLUMN device_search.state IS 'As in devices';
COMMENT ON COLUMN device_search.discovery_sources IS 'As in devices';
COMMENT ON TABLE record_summaries IS 'A record, one thing as one source sees it, but for its attributes';
COMMENT ON COLUMN record_summaries.tenant IS 'The tenant';
COMMENT ON COLUMN record_summaries.record_key IS 'partition/kind/instance/native key';
COMMENT ON COLUMN record_summaries.partition IS 'The partition';
COMMENT ON COLUMN record_summaries.source_kind IS 'What sort of producer';
COMMENT ON COLUMN record_summaries.source_instance IS 'Which one of them';
COMMENT ON COLUMN record_summaries.native_key IS 'The record''s key at its source';
COMMENT ON COLUMN record_summaries.uid IS 'Its device';
COMMENT ON COLUMN record_summaries.placement IS 'anchored, attached, provisional, unplaced, closed';
COMMENT ON COLUMN record_summaries.open IS 'Whether it is open';
COMMENT ON COLUMN record_summaries.first_seen IS 'Earliest event time it was asserted at';
COMMENT ON COLUMN record_summaries.last_seen IS 'Latest event time it was asserted at';
COMMENT ON COLUMN record_summaries.first_asserted IS 'Earliest intake time it was asserted at';
COMMENT ON COLUMN record_summaries.probe_up IS 'The latest verdict on reachability';
COMMENT ON COLUMN record_summaries.probe_at IS 'Its event time';
COMMENT ON COLUMN record_summaries.collector_agent IS 'Agent of the latest assert';
COMMENT ON COLUMN record_summaries.collector_gateway IS 'Gateway of the latest assert';
COMMENT ON COLUMN record_summaries.collector_address IS 'Address that the latest assert was made from';
COMMENT ON COLUMN record_summaries.first_snapshot_begin IS 'Begin of the first snapshot that listed it; null where it was ever asserted outside of one';
COMMENT ON COLUMN record_summaries.last_snapshot_begin IS 'Begin of the last snapshot that listed it';
COMMENT ON COLUMN record_summaries.place IS 'The address it was last seen with';
COMMENT ON COLUMN record_summaries.place_time IS 'Order of that: time';
COMMENT ON COLUMN record_summaries.place_hash IS 'Order of that: hash';
COMMENT ON COLUMN record_summaries.assert_time IS 'Order of its last assert: time';
COMMENT ON COLUMN record_summaries.assert_hash IS 'Order of its last assert: hash';
COMMENT ON COLUMN record_summaries.assert_event_time IS 'Event time of its last assert';
COMMENT ON COLUMN record_summaries.full_time IS 'Order of its last FULL assert: time';
COMMENT ON COLUMN record_summaries.full_hash IS 'Order of its last FULL assert: hash';
COMMENT ON COLUMN record_summaries.full_event_time IS 'Event time of its last FULL assert';
COMMENT ON COLUMN record_summaries.end_time IS 'Order of its own last END: time';
COMMENT ON COLUMN record_summaries.end_hash IS 'Order of its own last END: hash';
COMMENT ON TABLE record_attributes IS 'The attributes of a record, apart from what every sighting rewrites';
COMMENT ON COLUMN record_attributes.tenant IS 'The tenant';
COMMENT ON COLUMN record_attributes.record_key IS 'The record';
COMMENT ON COLUMN record_attributes.attributes IS '{name: value}, or [value, order time, order hash, event time] where it is not of the last FULL assert';
COMMENT ON TABLE device_evidence IS 'A claim, or an address, that a record ever had';
COMMENT ON COLUMN device_evidence.tenant IS 'The tenant';
COMMENT ON COLUMN device_evidence.record_key IS 'The record';
COMMENT ON COLUMN device_evidence.namespace IS 'E.g. mac, armis/hq, ip';
COMMENT ON COLUMN device_evidence.value IS 'Normalised';
COMMENT ON COLUMN device_evidence.claim_uid IS 'uid(claim); null for tier 3';
COMMENT ON COLUMN device_evidence.ip IS 'The address itself, where it is one';
COMMENT ON COLUMN device_evidence.state IS 'linking, corroborating, ambiguous, quarantined, generic, bridging, blocked, refused, lapsed, expired';
COMMENT ON COLUMN device_evidence.leads IS 'Its record''s device is where claim_uid redirects to: one row per claim at most';
COMMENT ON COLUMN device_evidence.first_seen IS 'Earliest event time';
COMMENT ON COLUMN device_evidence.first_asserted IS 'Earliest intake time';
COMMENT ON COLUMN device_evidence.last_time IS 'Order of its last assertion: time; null where it is that of the record''s last FULL assert';
COMMENT ON COLUMN device_evidence.last_hash IS 'Order of its last assertion: hash; null likewise';
COMMENT ON COLUMN device_evidence.last_seen IS 'Event time of its last assertion; null likewise';
COMMENT ON TABLE identity_issues IS 'What the rules refused or flagged';
COMMENT ON COLUMN identity_issues.tenant IS 'The tenant';
COMMENT ON COLUMN identity_issues.partition IS 'The partition';
COMMENT ON COLUMN identity_issues.kind IS 'ambiguous, bridging, conflict, generic, quarantined, oversized, quality';
COMMENT ON COLUMN identity_issues.namespace IS 'Of the claim; record where it is of a record';
COMMENT ON COLUMN identity_issues.value IS 'Of the claim; the record key where it is of a record';
COMMENT ON COLUMN identity_issues.uids IS 'Devices concerned, sorted';
COMMENT ON COLUMN identity_issues.detail IS 'In words';
COMMENT ON TABLE device_counts IS 'How many devices have a value of a dimension';
COMMENT ON COLUMN device_counts.tenant IS 'The tenant';
COMMENT ON COLUMN device_counts.partition IS 'The partition';
COMMENT ON COLUMN device_counts.dimension IS 'all, type, vendor_name, state, confidence, discovery_source, risk_level, site';
COMMENT ON COLUMN device_counts.value IS 'The value; empty for all and where it is absent';
COMMENT ON COLUMN device_counts.devices IS 'Devices';
COMMENT ON COLUMN device_counts.available IS 'Of them, those that answered';
COMMENT ON COLUMN device_counts.unavailable IS 'Those that did not';
COMMENT ON COLUMN device_counts.unknown IS 'Those nobody looked at lately';
COMMENT ON TABLE decisions IS 'A decision, in force or not';
COMMENT ON COLUMN decisions.tenant IS 'The tenant';
COMMENT ON COLUMN decisions.id IS 'Its id';
COMMENT ON COLUMN decisions.partition IS 'The partition it holds in';
COMMENT ON COLUMN decisions.action IS 'What it does';
COMMENT ON COLUMN decisions.target IS 'What it is about';
COMMENT ON COLUMN decisions.value IS 'Of pin_value: the value shown';
COMMENT ON COLUMN decisions.revokes IS 'Of revoke: the action revoked';
COMMENT ON COLUMN decisions.in_force IS 'Whether no other outweighs it';
COMMENT ON COLUMN decisions.actor IS 'Who decided';
COMMENT ON COLUMN decisions.reason IS 'Why';
COMMENT ON COLUMN decisions.at IS 'Its time, clamped: what counts';
COMMENT ON TABLE snapshots IS 'A fetch of a source';
COMMENT ON COLUMN snapshots.tenant IS 'The tenant';
COMMENT ON COLUMN snapshots.partition IS 'The partition';
COMMENT ON COLUMN snapshots.source_kind IS 'The source';
COMMENT ON COLUMN snapshots.source_instance IS 'The source';
COMMENT ON COLUMN snapshots.begin IS 'When it began';
COMMENT ON COLUMN snapshots.id IS 'The producer''s id of it';
COMMENT ON COLUMN snapshots.counted IS 'How many records its SNAPSHOT_END says it has';
COMMENT ON COLUMN snapshots.members IS 'How many came, while undecided';
COMMENT ON COLUMN snapshots.ended_at IS 'When its SNAPSHOT_END was taken in';
COMMENT ON COLUMN snapshots.verdict IS 'accepted, held; null while undecided';
COMMENT ON COLUMN snapshots.detail IS 'In words, of the decision';
COMMENT ON TABLE snapshot_members IS 'A member of an undecided fetch that a later fetch listed too; of the others device_records.last_snapshot_begin tells';
COMMENT ON COLUMN snapshot_members.tenant IS 'The tenant';
COMMENT ON COLUMN snapshot_members.partition IS 'The partition';
COMMENT ON COLUMN snapshot_members.source_kind IS 'The source';
COMMENT ON COLUMN snapshot_members.source_instance IS 'The source';
COMMENT ON COLUMN snapshot_members.begin IS 'When the fetch began';
COMMENT ON COLUMN snapshot_members.record_key IS 'The record';
