-- Views over a generation's base tables, in its schema (the search path).

CREATE VIEW device_identifiers AS
  SELECT e.tenant, r.uid, e.namespace, e.value, e.state, e.record_key, e.claim_uid, e.first_seen,
         CASE WHEN e.last_time IS NULL THEN r.full_event_time ELSE e.last_seen END AS last_seen,
         e.first_asserted
  FROM device_evidence e JOIN device_records r USING (tenant, record_key)
  WHERE e.ip IS NULL;
COMMENT ON VIEW device_identifiers IS 'A claim of a record, with the device, what it does, and its span';

CREATE VIEW device_redirects AS
  SELECT e.tenant, e.claim_uid, r.uid
  FROM device_evidence e JOIN device_records r USING (tenant, record_key)
  WHERE e.leads;
COMMENT ON VIEW device_redirects IS 'uid of a claim to uid of its device, in one step';

CREATE VIEW device_addresses AS
  SELECT e.tenant, r.partition, r.uid, e.ip, e.record_key, r.placement, e.state = 'corroborating' AS is_current,
         e.first_seen, CASE WHEN e.last_time IS NULL THEN r.full_event_time ELSE e.last_seen END AS last_seen
  FROM device_evidence e JOIN device_records r USING (tenant, record_key)
  WHERE e.ip IS NOT NULL;
COMMENT ON VIEW device_addresses IS 'An address that a record of a device ever had';

CREATE VIEW address_conflicts AS
  SELECT tenant, partition, ip, array_agg(DISTINCT uid ORDER BY uid) AS uids
  FROM device_addresses
  WHERE is_current AND placement = 'anchored'
  GROUP BY tenant, partition, ip
  HAVING count(DISTINCT uid) > 1;
COMMENT ON VIEW address_conflicts IS 'An address that several devices hold currently';
