//! Dense labels: records, claims, sources and names as small integers inside the dataflow.
//!
//! Append-only, one per worker, shared by its operators: text and uids appear at the edge alone.

use std::{
    hash::{BuildHasher, Hash},
    net::IpAddr,
    sync::Arc,
};

use hashbrown::{DefaultHashBuilder, HashMap};
use serviceradar_schemas::Source;

use crate::{
    claim::{Namespace, UidMaker, is_universal, mac_text},
    labels::Labels,
    normalise::ClaimKey,
    rows::Uid,
    texts::{TextAt, Texts},
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

/// What the claims of a namespace are, in a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimClass {
    /// Where.
    pub scope: ScopeId,
    /// Index of its namespace's name.
    pub namespace: u32,
    /// What its namespace may do.
    pub kind: Namespace,
    /// Tier by its form alone; an allowed local MAC is tier 2.
    pub tier: u8,
}

/// The dictionary of one worker.
pub struct Dictionary {
    tenant: String,
    hasher: DefaultHashBuilder,
    scopes: Vec<ScopeEntry>,
    sources: Vec<SourceEntry>,
    source_ids: HashMap<(ScopeId, Source), SourceId>,
    /// `partition/kind/instance/native key`.
    records: Vec<TextAt>,
    /// By record; and thereby its scope.
    source_of: Vec<SourceId>,
    record_ids: Labels,
    classes: Vec<ClaimClass>,
    /// By scope, namespace and tier.
    class_ids: HashMap<(ScopeId, u32, u8), u32>,
    /// By claim: apart, since its class is asked much more often than the rest.
    class_of: Vec<u32>,
    /// By claim: the 48 bits of a MAC, or where its text is.
    values: Vec<u64>,
    claim_ids: Labels,
    kept: Texts,
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
            source_of: Vec::new(),
            record_ids: Labels::default(),
            classes: Vec::new(),
            class_ids: HashMap::new(),
            class_of: Vec::new(),
            values: Vec::new(),
            claim_ids: Labels::default(),
            kept: Texts::default(),
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
        if let Some(id) = self.record_ids.find(hash, |id| self.key(id) == key) {
            return id;
        }
        let source = self.source(scope, source);
        let id = self.records.len() as RecordId;
        self.records.push(self.kept.keep(key));
        self.source_of.push(source);
        self.sources[source as usize].records.push(id);
        self.record_ids.insert(hash, id);
        id
    }

    /// A record that is known.
    pub fn find_record(&self, key: &str) -> Option<RecordId> {
        self.record_ids.find(self.hasher.hash_one(key), |id| self.key(id) == key)
    }

    /// The key of a record: `partition/kind/instance/native key`.
    pub fn key(&self, record: RecordId) -> &str {
        self.kept.at(self.records[record as usize])
    }

    /// The label of the source of a record.
    pub fn source_id(&self, record: RecordId) -> SourceId {
        self.source_of[record as usize]
    }

    /// The source of a record.
    pub fn source_of(&self, record: RecordId) -> &SourceEntry {
        self.source_entry(self.source_id(record))
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
        let class = self.class_of(claim);
        let (namespace, value) = match key {
            ClaimKey::Mac(mac) => ("mac", ClaimText::Mac(*mac)),
            ClaimKey::Text(namespace, value) => (namespace.as_str(), ClaimText::Text(value)),
        };
        class.scope == scope
            && self.value(claim) == value
            && *self.texts[class.namespace as usize] == *namespace
    }

    fn claim_of(&mut self, scope: ScopeId, namespace: &str, value: ClaimText<'_>) -> ClaimId {
        let namespace_id = self.text(namespace);
        let hash = value.hash(&self.hasher, scope, namespace_id);
        let same = |id: ClaimId| {
            let class = self.class_of(id);
            class.scope == scope && class.namespace == namespace_id && self.value(id) == value
        };
        if let Some(id) = self.claim_ids.find(hash, same) {
            return id;
        }
        let kind = Namespace::of(namespace);
        let class = ClaimClass { scope, namespace: namespace_id, kind, tier: tier(kind, value) };
        let id = self.class_of.len() as ClaimId;
        let class = self.class(class);
        self.class_of.push(class);
        self.values.push(match value {
            ClaimText::Mac(mac) => mac,
            ClaimText::Text(text) => self.kept.keep(text).into(),
        });
        self.claim_ids.insert(hash, id);
        id
    }

    /// The number of a class.
    fn class(&mut self, class: ClaimClass) -> u32 {
        *self.class_ids.entry((class.scope, class.namespace, class.tier)).or_insert_with(|| {
            self.classes.push(class);
            (self.classes.len() - 1) as u32
        })
    }

    /// How many claims there are.
    pub fn claims(&self) -> usize {
        self.class_of.len()
    }

    /// The private claim of a detached record.
    pub fn detached_claim(&mut self, record: RecordId) -> ClaimId {
        let key = self.key(record).to_owned();
        let scope = self.source_of(record).scope;
        self.claim_of(scope, "detached", ClaimText::Text(&key))
    }

    /// What a claim is.
    pub fn class_of(&self, claim: ClaimId) -> ClaimClass {
        self.classes[self.class_of[claim as usize] as usize]
    }

    /// uid(claim). It is made each time: it is asked less often than there are claims.
    pub fn claim_uid(&self, claim: ClaimId) -> Uid {
        let class = self.class_of(claim);
        let (uids, namespace) =
            (&self.scopes[class.scope as usize].uids, &self.texts[class.namespace as usize]);
        match self.value(claim) {
            ClaimText::Mac(mac) => uids.claim(namespace, &mac_text(mac)),
            ClaimText::Text(text) => uids.claim(namespace, text),
        }
    }

    /// The 48 bits of a claim that is a MAC.
    pub fn claim_mac(&self, claim: ClaimId) -> Option<u64> {
        match self.value(claim) {
            ClaimText::Mac(mac) => Some(mac),
            ClaimText::Text(_) => None,
        }
    }

    fn value(&self, claim: ClaimId) -> ClaimText<'_> {
        ClaimText::of(self.class_of(claim).kind, self.values[claim as usize], &self.kept)
    }

    /// Namespace and value of a claim, as the views write them.
    pub fn claim_text(&self, claim: ClaimId) -> (Arc<str>, Arc<str>) {
        let value = match self.value(claim) {
            ClaimText::Mac(mac) => mac_text(mac).into(),
            ClaimText::Text(text) => text.into(),
        };
        (self.texts[self.class_of(claim).namespace as usize].clone(), value)
    }

    /// Orders claims as their text does: by namespace, then value.
    pub fn compare_claims(&self, a: ClaimId, b: ClaimId) -> std::cmp::Ordering {
        let namespace = |claim| &self.texts[self.class_of(claim).namespace as usize];
        // MACs of one namespace: 12 digits each, so that numbers order as their text.
        namespace(a).cmp(namespace(b)).then_with(|| self.value(a).cmp(&self.value(b)))
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

/// The value of a claim.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ClaimText<'a> {
    Mac(u64),
    Text(&'a str),
}

impl<'a> ClaimText<'a> {
    fn of(kind: Namespace, value: u64, texts: &'a Texts) -> Self {
        match kind {
            Namespace::Mac => Self::Mac(value),
            _ => Self::Text(texts.at(value.into())),
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

/// Tier by its form alone.
fn tier(kind: Namespace, value: ClaimText<'_>) -> u8 {
    match value {
        ClaimText::Mac(mac) if is_universal(mac) => 2,
        ClaimText::Text(_) if kind.is_tier_1() => 1,
        ClaimText::Mac(_) | ClaimText::Text(_) => 3,
    }
}
