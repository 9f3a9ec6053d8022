-- Secondary indexes of a generation: the tenant first in each, but where another column alone finds the row: a sort
-- by it takes a third of the time (817,000 rows: 0.7 and 1.0 s, with the tenant first 2.6 s each).
-- Names may be longer than an entry of a tree: their beginnings are in it. Words go without the tenant (1,000,000
-- devices of one tenant: a word that one of them has 1.2 and 9.0 ms, one of 100 9 and 23 ms).
-- last_seen is in none: its ten seconds are, so that most sightings touch no index.
-- Addresses are in trees: the planner turns <<= into a range of them, and a GiST index took eight times as long
-- to make.

CREATE INDEX device_summaries_last_seen ON device_summaries (tenant, last_seen_period DESC NULLS LAST);
CREATE INDEX device_summaries_name ON device_summaries (tenant, left(name, 200));
CREATE INDEX device_summaries_hostname ON device_summaries (tenant, left(hostname, 200));
CREATE INDEX device_summaries_mac ON device_summaries (tenant, mac);
CREATE INDEX device_search_words ON device_search USING gin (words gin_trgm_ops);
CREATE INDEX device_search_sources ON device_search USING gin (tenant, discovery_sources);
CREATE INDEX device_search_ip ON device_search (tenant, ip) WHERE ip IS NOT NULL;
CREATE INDEX record_summaries_uid ON record_summaries (tenant, uid);
CREATE INDEX device_evidence_claim ON device_evidence (value, namespace, tenant);
CREATE INDEX device_evidence_leads ON device_evidence (claim_uid, tenant) WHERE leads;
CREATE INDEX device_evidence_ip ON device_evidence (tenant, ip) WHERE ip IS NOT NULL;
CREATE INDEX identity_issues_kind ON identity_issues (tenant, kind);
