-- Views over a generation's base tables, in its schema (the search path).
-- Joined from the left: what asks for no detail reads no details, and what asks for no sources reads no records.

CREATE VIEW devices AS
  SELECT s.tenant, s.uid, s.partition, s.name, s.hostname, s.ip, s.mac, s.type, s.type_id, s.vendor_name,
         s.model, d.os, d.hw_info, s.risk_score, s.risk_level, s.risk_level_id, s.is_available,
         s.availability_at, s.discovery_sources,
         (SELECT coalesce(jsonb_agg(to_jsonb(of_each) ORDER BY source), '[]')
          FROM (SELECT r.source_kind || '/' || r.source_instance AS source,
                       (extract(epoch FROM min(r.first_seen)) * 1000000)::bigint AS first_seen,
                       (extract(epoch FROM max(r.last_seen)) * 1000000)::bigint AS last_seen,
                       count(*) AS records, count(*) FILTER (WHERE r.open) AS open
                FROM record_summaries r
                WHERE r.tenant = s.tenant AND r.uid = s.uid AND r.placement <> 'closed'
                GROUP BY 1) of_each) AS sources,
         s.confidence, s.state, s.first_seen, s.last_seen,
         s.last_seen_period, s.agent_id, s.gateway_id, d.network_interfaces, s.site, d.tags, d.metadata, s.records, s.flags,
         s.modified_at, s.epoch
  FROM device_summaries s LEFT JOIN device_details d USING (tenant, uid);
COMMENT ON VIEW devices IS 'A device now: what the rules decide a set of records to be';
COMMENT ON COLUMN devices.sources IS
  'What each source contributes: first_seen and last_seen (microseconds since 1970), records, open';

CREATE VIEW device_records AS
  SELECT s.tenant, s.record_key, s.partition, s.source_kind, s.source_instance, s.native_key, s.uid,
         s.placement, s.open, s.first_seen, s.last_seen, s.first_asserted, a.attributes, s.probe_up,
         s.probe_at, s.collector_agent, s.collector_gateway, s.collector_address, s.first_snapshot_begin,
         s.last_snapshot_begin, s.place, s.place_time, s.place_hash, s.assert_time, s.assert_hash,
         s.assert_event_time, s.full_time, s.full_hash, s.full_event_time, s.end_time, s.end_hash
  FROM record_summaries s LEFT JOIN record_attributes a USING (tenant, record_key);
COMMENT ON VIEW device_records IS 'A record: one thing as one source sees it, as last asserted';

CREATE VIEW device_identifiers AS
  SELECT e.tenant, r.uid, e.namespace, e.value, e.state, e.record_key, e.claim_uid, e.first_seen,
         CASE WHEN e.last_time IS NULL THEN r.full_event_time ELSE e.last_seen END AS last_seen,
         e.first_asserted
  FROM device_evidence e JOIN record_summaries r USING (tenant, record_key)
  WHERE e.ip IS NULL;
COMMENT ON VIEW device_identifiers IS 'A claim of a record, with the device, what it does, and its span';

CREATE VIEW device_redirects AS
  SELECT e.tenant, e.claim_uid, r.uid
  FROM device_evidence e JOIN record_summaries r USING (tenant, record_key)
  WHERE e.leads;
COMMENT ON VIEW device_redirects IS 'uid of a claim to uid of its device, in one step';

CREATE VIEW device_addresses AS
  SELECT e.tenant, r.partition, r.uid, e.ip, e.record_key, r.placement, e.state = 'corroborating' AS is_current,
         e.first_seen, CASE WHEN e.last_time IS NULL THEN r.full_event_time ELSE e.last_seen END AS last_seen
  FROM device_evidence e JOIN record_summaries r USING (tenant, record_key)
  WHERE e.ip IS NOT NULL;
COMMENT ON VIEW device_addresses IS 'An address that a record of a device ever had';

CREATE VIEW address_conflicts AS
  SELECT tenant, partition, ip, array_agg(DISTINCT uid ORDER BY uid) AS uids
  FROM device_addresses
  WHERE is_current AND placement = 'anchored'
  GROUP BY tenant, partition, ip
  HAVING count(DISTINCT uid) > 1;
COMMENT ON VIEW address_conflicts IS 'An address that several devices hold currently';
