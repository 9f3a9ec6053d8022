-- Secondary indexes of a generation: the tenant first in each, but where another column alone finds the row: a sort
-- by it takes a third of the time (817,000 rows: 0.7 and 1.0 s, with the tenant first 2.6 s each).
-- Words go without the tenant (1,000,000 devices of one tenant: a word that one of them has 1.2 and 9.0 ms, one of 100
-- 9 and 23 ms).
-- Of what sightings leave as it is an index alone tells all that it has, without a look at the table: so the names by
-- which devices are sorted stand in those by which they are found, and one has what they are counted by. A field has
-- 1,024 bytes at most: two of them fit into an entry of a tree.
-- Devices of a page are read one by one, by their uids: a tree has three pages to go through until it has one, a hash one.
-- last_seen is in none: its ten seconds are, so that most sightings touch no index.
-- Addresses are in trees: the planner turns <<= into a range of them, and a GiST index took eight times as long
-- to make.

CREATE INDEX device_summaries_last_seen ON device_summaries (tenant, last_seen_period DESC NULLS LAST);
CREATE INDEX device_summaries_name ON device_summaries (tenant, name);
CREATE INDEX device_summaries_hostname ON device_summaries (tenant, hostname);
CREATE INDEX device_summaries_mac ON device_summaries (tenant, mac);
CREATE INDEX device_summaries_uid ON device_summaries USING hash (uid);
CREATE INDEX device_details_uid ON device_details USING hash (uid);
CREATE INDEX device_search_words ON device_search USING gin (words gin_trgm_ops);
CREATE INDEX device_search_addresses ON device_search USING gin (addresses gin_trgm_ops);
CREATE INDEX device_search_sources ON device_search USING gin (tenant, discovery_sources);
CREATE INDEX device_search_ip ON device_search (tenant, ip) INCLUDE (uid) WHERE ip IS NOT NULL;
CREATE INDEX device_search_hostname ON device_search (tenant, hostname) INCLUDE (uid, name, state);
CREATE INDEX device_search_counts ON device_search (tenant, type, vendor_name, site, state);
CREATE INDEX record_summaries_uid ON record_summaries (uid, tenant);
CREATE INDEX device_evidence_claim ON device_evidence (value, namespace, tenant);
CREATE INDEX device_evidence_leads ON device_evidence (claim_uid, tenant) WHERE leads;
CREATE INDEX device_evidence_ip ON device_evidence (tenant, ip) INCLUDE (state, record_key) WHERE ip IS NOT NULL;
CREATE INDEX identity_issues_kind ON identity_issues (tenant, kind);
