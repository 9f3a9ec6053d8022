//! Framing of what is restored: an id of a registry means nothing where another registry is, or none. An event of a
//! schema that this program knows is framed as a single object; of another writer's, by the id that the registry of now
//! gives to it; what was in no such framing, or of no known id, stays as it is. The datum is never touched.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serviceradar_schemas::{
    Decision, DeviceChange, Event, Observation,
    codec::{as_single_object, known_as, registry_id, under_id},
    topics::split,
};

use crate::archive::manifest::{ArchivedFile, Manifest};

/// A schema of another writer, which a registry must have for its events to be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Foreign {
    /// The id that it had.
    pub id: u32,
    /// The topic that has its events.
    pub topic: String,
    /// As JSON.
    pub schema: String,
}

/// What a schema is here.
enum Known {
    As([u8; 8]),
    Under(u32),
}

/// How the events of a file are framed anew.
pub(super) struct Reframing(BTreeMap<u32, Known>);

impl Reframing {
    pub(super) fn of(file: &ArchivedFile, ids: &BTreeMap<u32, u32>) -> Self {
        let knows = knows(&file.topic);
        let known = |(id, text): (&u32, &String)| match knows?(text) {
            Some(fingerprint) => Some((*id, Known::As(fingerprint))),
            None => ids.get(id).map(|now| (*id, Known::Under(*now))),
        };
        Self(file.schemas.iter().filter_map(known).collect())
    }

    pub(super) fn reframe(&self, value: Bytes) -> Bytes {
        let known = registry_id(&value).and_then(|id| self.0.get(&id));
        let framed = known.and_then(|known| match known {
            Known::As(fingerprint) => as_single_object(&value, *fingerprint),
            Known::Under(id) => under_id(&value, *id),
        });
        framed.map_or(value, Bytes::from)
    }
}

/// The fingerprint by which this program knows a schema, given as JSON; none of another writer's.
type KnownAs = fn(&str) -> Option<[u8; 8]>;

/// The schemas that this program knows of a topic's events; none where nobody reads them, and they stay as they are.
fn knows(topic: &str) -> Option<KnownAs> {
    let (_, stream) = split(topic)?;
    if stream == Observation::STREAM.name() {
        Some(known_as::<Observation>)
    } else if stream == Decision::STREAM.name() {
        Some(known_as::<Decision>)
    } else if stream == DeviceChange::STREAM.name() {
        Some(known_as::<DeviceChange>)
    } else {
        None
    }
}

/// Schemas of other writers in the files of these topics, in order, each id once.
pub(super) fn foreign(manifest: &Manifest, topics: &[String]) -> Vec<Foreign> {
    let files = manifest.files.iter().filter(|file| topics.contains(&file.topic));
    let foreign: BTreeSet<_> = files
        .flat_map(|file| file.schemas.iter().map(move |(id, schema)| (file, *id, schema)))
        .filter(|(file, _, schema)| knows(&file.topic).is_some_and(|known_as| known_as(schema).is_none()))
        .map(|(file, id, schema)| Foreign { id, topic: file.topic.clone(), schema: schema.clone() })
        .collect();
    let mut foreign: Vec<_> = foreign.into_iter().collect();
    foreign.dedup_by_key(|foreign| foreign.id);
    foreign
}
