//! Dense labels: records, claims, sources and names as small integers inside the dataflow.
//!
//! Append-only, one per worker, shared by its operators: text and uids appear at the edge alone.

use std::{
    hash::{BuildHasher, Hash},
    net::IpAddr,
    sync::Arc,
};

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use serviceradar_schemas::Source;

use crate::{
    claim::{Namespace, UidMaker, is_universal, mac_text},
    normalise::ClaimKey,
    rows::Uid,
};

/// A record.
pub type RecordId = u32;
/// A claim: (scope, namespace, value).
pub type ClaimId = u32;
/// A source in a scope.
pub type SourceId = u32;
/// A scope of the tenant: a partition.
pub type ScopeId = u32;
/// The name of an attribute.
pub type NameId = u32;

/// A partition of the tenant.
pub struct ScopeEntry {
    /// Its name.
    pub partition: Arc<str>,
    uids: UidMaker,
}

/// A source in a scope.
pub struct SourceEntry {
    /// Where.
    pub scope: ScopeId,
    /// Who.
    pub source: Source,
    /// Its records, in the order they came.
    pub records: Vec<RecordId>,
}

/// A record.
pub struct RecordEntry {
    /// `partition/kind/instance/native key`.
    pub key: Arc<str>,
    /// Its source, and thereby its scope.
    pub source: SourceId,
}

/// The value of a claim.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClaimValue {
    /// A MAC, 48 bits.
    Mac(u64),
    /// Anything else.
    Text(Arc<str>),
}

/// A claim.
pub struct ClaimEntry {
    /// Where.
    pub scope: ScopeId,
    /// Index of its namespace's name.
    pub namespace: u32,
    /// What its namespace may do.
    pub kind: Namespace,
    /// Its value.
    pub value: ClaimValue,
    /// uid(claim).
    pub uid: Uid,
}

impl ClaimEntry {
    /// Tier by its form alone; an allowed local MAC is tier 2.
    pub fn tier(&self) -> u8 {
        match self.value {
            ClaimValue::Mac(mac) if is_universal(mac) => 2,
            ClaimValue::Mac(_) => 3,
            ClaimValue::Text(_) if self.kind.is_tier_1() => 1,
            ClaimValue::Text(_) => 3,
        }
    }
}

/// The dictionary of one worker.
pub struct Dictionary {
    tenant: String,
    hasher: DefaultHashBuilder,
    scopes: Vec<ScopeEntry>,
    sources: Vec<SourceEntry>,
    source_ids: HashMap<(ScopeId, Source), SourceId>,
    records: Vec<RecordEntry>,
    record_ids: HashTable<RecordId>,
    claims: Vec<ClaimEntry>,
    claim_ids: HashTable<ClaimId>,
    texts: Vec<Arc<str>>,
    text_ids: HashMap<Arc<str>, u32>,
}

impl Dictionary {
    /// Empty, for one tenant.
    pub fn new(tenant: &str) -> Self {
        Self {
            tenant: tenant.to_owned(),
            hasher: DefaultHashBuilder::default(),
            scopes: Vec::new(),
            sources: Vec::new(),
            source_ids: HashMap::new(),
            records: Vec::new(),
            record_ids: HashTable::new(),
            claims: Vec::new(),
            claim_ids: HashTable::new(),
            texts: Vec::new(),
            text_ids: HashMap::new(),
        }
    }

    /// The scope of a partition.
    pub fn scope(&mut self, partition: &str) -> ScopeId {
        // A tenant has few partitions: a scan beats a hash.
        if let Some(index) = self.scopes.iter().position(|scope| &*scope.partition == partition) {
            return index as ScopeId;
        }
        let uids = UidMaker::new(&self.tenant, partition);
        self.scopes.push(ScopeEntry { partition: partition.into(), uids });
        (self.scopes.len() - 1) as ScopeId
    }

    /// How many scopes there are.
    pub fn scopes(&self) -> usize {
        self.scopes.len()
    }

    /// The partition of a scope.
    pub fn partition(&self, scope: ScopeId) -> &Arc<str> {
        &self.scopes[scope as usize].partition
    }

    /// uid(`ip`, p).
    pub fn address_uid(&self, scope: ScopeId, ip: IpAddr) -> Uid {
        self.scopes[scope as usize].uids.address(ip)
    }

    /// A source of a scope.
    pub fn source(&mut self, scope: ScopeId, source: &Source) -> SourceId {
        if let Some(id) = self.source_ids.get(&(scope, source.clone())) {
            return *id;
        }
        let id = self.sources.len() as SourceId;
        self.sources.push(SourceEntry { scope, source: source.clone(), records: Vec::new() });
        self.source_ids.insert((scope, source.clone()), id);
        id
    }

    /// What a source is.
    pub fn source_entry(&self, source: SourceId) -> &SourceEntry {
        &self.sources[source as usize]
    }

    /// A record by its key; its source is looked up where the record is new.
    pub fn record(&mut self, scope: ScopeId, source: &Source, key: &str) -> RecordId {
        let hash = self.hasher.hash_one(key);
        let records = &self.records;
        if let Some(id) = self.record_ids.find(hash, |id| &*records[*id as usize].key == key) {
            return *id;
        }
        let source = self.source(scope, source);
        let id = self.records.len() as RecordId;
        self.records.push(RecordEntry { key: key.into(), source });
        self.sources[source as usize].records.push(id);
        let (records, hasher) = (&self.records, &self.hasher);
        self.record_ids.insert_unique(hash, id, |id| hasher.hash_one(&*records[*id as usize].key));
        id
    }

    /// A record that is known.
    pub fn find_record(&self, key: &str) -> Option<RecordId> {
        let hash = self.hasher.hash_one(key);
        self.record_ids.find(hash, |id| &*self.records[*id as usize].key == key).copied()
    }

    /// What a record is.
    pub fn record_entry(&self, record: RecordId) -> &RecordEntry {
        &self.records[record as usize]
    }

    /// The source of a record.
    pub fn source_of(&self, record: RecordId) -> &SourceEntry {
        self.source_entry(self.record_entry(record).source)
    }

    /// How many records there are.
    pub fn records(&self) -> usize {
        self.records.len()
    }

    /// A claim.
    pub fn claim(&mut self, scope: ScopeId, key: &ClaimKey) -> ClaimId {
        match key {
            ClaimKey::Mac(mac) => self.claim_of(scope, "mac", ClaimText::Mac(*mac)),
            ClaimKey::Text(namespace, value) => self.claim_of(scope, namespace, ClaimText::Text(value)),
        }
    }

    /// Whether a label is that of a claim.
    pub fn is_claim(&self, claim: ClaimId, scope: ScopeId, key: &ClaimKey) -> bool {
        let entry = self.claim_entry(claim);
        let (namespace, value) = match key {
            ClaimKey::Mac(mac) => ("mac", ClaimText::Mac(*mac)),
            ClaimKey::Text(namespace, value) => (namespace.as_str(), ClaimText::Text(value)),
        };
        entry.scope == scope && value.is(&entry.value) && *self.texts[entry.namespace as usize] == *namespace
    }

    fn claim_of(&mut self, scope: ScopeId, namespace: &str, value: ClaimText<'_>) -> ClaimId {
        let namespace_id = self.text(namespace);
        let hash = value.hash(&self.hasher, scope, namespace_id);
        let claims = &self.claims;
        let same = |id: &ClaimId| {
            let claim = &claims[*id as usize];
            claim.scope == scope && claim.namespace == namespace_id && value.is(&claim.value)
        };
        if let Some(id) = self.claim_ids.find(hash, same) {
            return *id;
        }
        let uids = &self.scopes[scope as usize].uids;
        let (uid, value) = match value {
            ClaimText::Mac(mac) => (uids.claim(namespace, &mac_text(mac)), ClaimValue::Mac(mac)),
            ClaimText::Text(text) => (uids.claim(namespace, text), ClaimValue::Text(text.into())),
        };
        let id = self.claims.len() as ClaimId;
        let kind = Namespace::of(namespace);
        self.claims.push(ClaimEntry { scope, namespace: namespace_id, kind, value, uid });
        let (claims, hasher) = (&self.claims, &self.hasher);
        self.claim_ids.insert_unique(hash, id, |id| {
            let claim = &claims[*id as usize];
            ClaimText::of(&claim.value).hash(hasher, claim.scope, claim.namespace)
        });
        id
    }

    /// How many claims there are.
    pub fn claims(&self) -> usize {
        self.claims.len()
    }

    /// The private claim of a detached record.
    pub fn detached_claim(&mut self, record: RecordId) -> ClaimId {
        let key = self.records[record as usize].key.clone();
        let scope = self.source_of(record).scope;
        self.claim_of(scope, "detached", ClaimText::Text(&key))
    }

    /// What a claim is.
    pub fn claim_entry(&self, claim: ClaimId) -> &ClaimEntry {
        &self.claims[claim as usize]
    }

    /// Namespace and value of a claim, as the views write them.
    pub fn claim_text(&self, claim: ClaimId) -> (Arc<str>, Arc<str>) {
        let entry = self.claim_entry(claim);
        let value = match &entry.value {
            ClaimValue::Mac(mac) => mac_text(*mac).into(),
            ClaimValue::Text(text) => text.clone(),
        };
        (self.texts[entry.namespace as usize].clone(), value)
    }

    /// Orders claims as their text does: by namespace, then value.
    pub fn compare_claims(&self, a: ClaimId, b: ClaimId) -> std::cmp::Ordering {
        let (a, b) = (self.claim_entry(a), self.claim_entry(b));
        let namespaces = self.texts[a.namespace as usize].cmp(&self.texts[b.namespace as usize]);
        // MACs of one namespace: 12 digits each, so that numbers order as their text.
        namespaces.then_with(|| a.value.cmp(&b.value))
    }

    /// A text that recurs: the name of a namespace or of an attribute.
    pub fn text(&mut self, text: &str) -> u32 {
        if let Some(id) = self.text_ids.get(text) {
            return *id;
        }
        let id = self.texts.len() as u32;
        let text: Arc<str> = text.into();
        self.texts.push(text.clone());
        self.text_ids.insert(text, id);
        id
    }

    /// A text by its label.
    pub fn text_of(&self, id: u32) -> &Arc<str> {
        &self.texts[id as usize]
    }
}

/// Values of attributes that recur, kept once: the last one of each slot.
pub struct Values {
    hasher: DefaultHashBuilder,
    slots: Vec<Arc<str>>,
}

/// Slots: some times as many as values that recur among the records of a network.
const VALUE_SLOTS: u64 = 1 << 14;

impl Default for Values {
    fn default() -> Self {
        Self { hasher: DefaultHashBuilder::default(), slots: vec!["".into(); VALUE_SLOTS as usize] }
    }
}

impl Values {
    /// A text, and the same one as the last time where nothing has taken its slot since.
    pub fn share(&mut self, text: &str) -> Arc<str> {
        let slot = &mut self.slots[(self.hasher.hash_one(text) % VALUE_SLOTS) as usize];
        if **slot != *text {
            *slot = text.into();
        }
        slot.clone()
    }
}

/// A claim's value while it is looked up.
enum ClaimText<'a> {
    Mac(u64),
    Text(&'a str),
}

impl<'a> ClaimText<'a> {
    fn of(value: &'a ClaimValue) -> Self {
        match value {
            ClaimValue::Mac(mac) => Self::Mac(*mac),
            ClaimValue::Text(text) => Self::Text(text),
        }
    }

    fn is(&self, value: &ClaimValue) -> bool {
        match (self, value) {
            (Self::Mac(a), ClaimValue::Mac(b)) => a == b,
            (Self::Text(a), ClaimValue::Text(b)) => **a == **b,
            _ => false,
        }
    }

    fn hash(&self, hasher: &DefaultHashBuilder, scope: ScopeId, namespace: u32) -> u64 {
        use std::hash::Hasher;
        let mut state = hasher.build_hasher();
        (scope, namespace).hash(&mut state);
        match self {
            Self::Mac(mac) => mac.hash(&mut state),
            Self::Text(text) => text.hash(&mut state),
        }
        state.finish()
    }
}
