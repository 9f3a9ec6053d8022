//! Files of observations, JSON lines or Avro container files: read in chunks, and checked as the pipeline would.

use std::{
    fs::File,
    io::{self, Read, Seek},
    iter,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, anyhow};
use serviceradar_ingest::publish;
use serviceradar_schemas::{
    Framing, Observation,
    codec::container::{ContainerDecoder, MAGIC},
};
use serviceradar_streams::normalise::normalise;

use crate::json_lines::{self, At, LineError, Pieces};

/// Bytes of a container that are read at a time, and how many bytes of events make a chunk.
const PIECE_BYTES: u64 = 1 << 20;
const CHUNK_BYTES: usize = 2 << 20;

/// A file of observations, which can be read from its start more than once.
#[derive(Clone, Debug)]
pub(super) struct Input {
    name: PathBuf,
    file: Arc<File>,
}

impl Input {
    /// `-` is standard input. It, and what else can be read only once, is copied to a file that nobody sees.
    pub(super) fn open(name: PathBuf) -> anyhow::Result<Self> {
        let file = open(&name).with_context(|| format!("cannot read {}", name.display()))?;
        Ok(Self { name, file: Arc::new(file) })
    }

    /// How long it is.
    pub(super) fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Its observations. Nothing is to be read behind an error.
    fn chunks(self) -> Chunks {
        match self.begin() {
            Ok((file, true)) => {
                Box::new(Records { name: self.name, file, decoder: ContainerDecoder::default(), record: 0 })
            }
            Ok((file, false)) => Box::new(Lines { name: self.name, pieces: Pieces::of(file), line: 0 }),
            Err(error) => {
                let error = anyhow::Error::new(error).context(format!("cannot read {}", self.name.display()));
                Box::new(iter::once(Err::<Chunk, _>(error)))
            }
        }
    }

    /// The file from its start, and whether it is a container.
    fn begin(&self) -> io::Result<(File, bool)> {
        let mut file = self.file.try_clone()?;
        file.rewind()?;
        let mut first = Vec::new();
        file.by_ref().take(MAGIC.len() as u64).read_to_end(&mut first)?;
        file.rewind()?;
        Ok((file, first == MAGIC))
    }
}

fn open(name: &Path) -> io::Result<File> {
    if name.as_os_str() == "-" {
        return kept(io::stdin().lock());
    }
    let file = File::open(name)?;
    if file.metadata()?.is_file() { Ok(file) } else { kept(file) }
}

fn kept(mut once: impl Read) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    io::copy(&mut once, &mut file)?;
    Ok(file)
}

/// Some observations of a file.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// What the pipeline would take, in order.
    pub(super) observations: Vec<Observation>,
    /// What it would not.
    pub(super) refused: Vec<Mistake>,
    /// Bytes of the file that were read for it.
    pub(super) read_bytes: u64,
    /// What was made of them, bytes.
    bytes: usize,
}

/// What is no observation that the pipeline would take.
#[derive(Debug)]
pub(super) struct Mistake {
    pub(super) file: PathBuf,
    pub(super) at: At,
    pub(super) why: String,
}

impl Chunk {
    fn take(&mut self, file: &Path, at: At, observation: Result<Observation, String>) {
        let checked = observation.and_then(|observation| Ok((check(&observation)?, observation)));
        match checked {
            Ok((bytes, observation)) => {
                self.bytes += bytes;
                self.observations.push(observation);
            }
            Err(why) => {
                self.bytes += why.len();
                self.refused.push(Mistake { file: file.to_owned(), at, why });
            }
        }
    }
}

/// How long the event of an observation is, bytes; or why neither the log nor the pipeline would take it.
fn check(observation: &Observation) -> Result<usize, String> {
    // Of the two framings the longer.
    let event = publish::event(observation, Framing::SingleObject).map_err(|error| error.to_string())?;
    normalise(observation.clone(), None).map_err(|refusal| refusal.to_string())?;
    Ok(event.bytes())
}

type Chunks = Box<dyn Iterator<Item = anyhow::Result<Chunk>> + Send>;

/// Reads files one after the other.
pub(super) struct Reading(Option<Chunks>);

impl Reading {
    /// From their start.
    pub(super) fn begin(inputs: Vec<Input>) -> Self {
        Self(Some(Box::new(inputs.into_iter().flat_map(Input::chunks))))
    }

    /// The next chunk; none at the end.
    ///
    /// # Errors
    /// What is behind cannot be read.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Chunk>> {
        let Some(mut chunks) = self.0.take() else {
            return Ok(None);
        };
        // To decode a chunk takes longer than a task may hold up others.
        let (chunks, next) = tokio::task::spawn_blocking(move || {
            let next = chunks.next();
            (chunks, next)
        })
        .await?;
        self.0 = Some(chunks);
        next.transpose()
    }
}

/// A file of JSON lines.
struct Lines {
    name: PathBuf,
    pieces: Pieces<File>,
    /// Lines that were read.
    line: usize,
}

impl Lines {
    fn read(&mut self, piece: &[u8]) -> anyhow::Result<Chunk> {
        let mut chunk = Chunk { read_bytes: piece.len() as u64, ..Chunk::default() };
        for line in json_lines::lines(piece) {
            self.line += 1;
            let observation = match json_lines::event(line) {
                None => continue,
                Some(Ok(observation)) => Ok(observation),
                Some(Err(LineError::Json(why))) => Err(why.to_string()),
                Some(Err(why @ LineError::TooLong)) => {
                    return Err(anyhow!("{}, line {}: {why}", self.name.display(), self.line));
                }
            };
            chunk.take(&self.name, At::Line(self.line), observation);
        }
        Ok(chunk)
    }
}

impl Iterator for Lines {
    type Item = anyhow::Result<Chunk>;

    fn next(&mut self) -> Option<Self::Item> {
        let piece = self.pieces.next()?;
        let piece =
            piece.with_context(|| format!("cannot read {} behind line {}", self.name.display(), self.line));
        Some(piece.and_then(|piece| self.read(&piece)))
    }
}

/// An Avro container file.
struct Records {
    name: PathBuf,
    file: File,
    decoder: ContainerDecoder<Observation>,
    /// Records that were read.
    record: usize,
}

impl Records {
    fn read(&mut self) -> anyhow::Result<Chunk> {
        let mut chunk = Chunk::default();
        while chunk.bytes < CHUNK_BYTES && self.step(&mut chunk)? {}
        Ok(chunk)
    }

    /// Takes a block, or where it is not there yet more of the file; false at its end.
    fn step(&mut self, chunk: &mut Chunk) -> anyhow::Result<bool> {
        if let Some(events) = self.decoder.next_events()? {
            for event in events {
                self.record += 1;
                chunk.take(&self.name, At::Record(self.record), event.map_err(|error| error.to_string()));
            }
            return Ok(true);
        }
        let mut piece = Vec::with_capacity(PIECE_BYTES as usize);
        self.file.by_ref().take(PIECE_BYTES).read_to_end(&mut piece)?;
        if piece.is_empty() {
            self.decoder.finish()?;
            return Ok(false);
        }
        chunk.read_bytes += piece.len() as u64;
        self.decoder.feed(&piece);
        Ok(true)
    }
}

impl Iterator for Records {
    type Item = anyhow::Result<Chunk>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.read() {
            Ok(chunk) if chunk.bytes == 0 => None,
            Ok(chunk) => Some(Ok(chunk)),
            Err(error) => {
                let name = self.name.display();
                Some(Err(error.context(format!("cannot read {name} behind record {}", self.record))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serviceradar_schemas::{Action, Event, Source, codec::container::ContainerWriter};

    use super::*;

    const GOOD: &str = r#"{"event_time":"2026-03-01T00:00:00Z","source":{"kind":"armis","instance":"hq"},"native_key":"1","action":"ASSERT"}"#;

    fn input(content: &[u8]) -> Input {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        Input { name: "the-file".into(), file: Arc::new(file) }
    }

    /// All of it, as one chunk; or why it cannot be read.
    fn read(content: &[u8]) -> Result<Chunk, String> {
        let mut all = Chunk::default();
        for chunk in input(content).chunks() {
            let chunk = chunk.map_err(|error| format!("{error:#}"))?;
            all.observations.extend(chunk.observations);
            all.refused.extend(chunk.refused);
        }
        Ok(all)
    }

    fn observation(key: &str) -> Observation {
        Observation {
            partition: "default".to_owned(),
            source: Source { kind: "armis".to_owned(), instance: "hq".to_owned() },
            native_key: key.to_owned(),
            action: Action::Assert,
            ..Observation::default()
        }
    }

    /// A file of a block for each observation.
    fn container(observations: &[Observation]) -> Vec<u8> {
        let mut writer = ContainerWriter::new(Observation::SCHEMA, [7; 16]);
        let mut file = writer.header().to_vec();
        for observation in observations {
            file.extend(writer.push(observation).unwrap().unwrap_or_default());
            file.extend(writer.block().unwrap().unwrap_or_default());
        }
        file
    }

    fn keys(chunk: &Chunk) -> Vec<&str> {
        chunk.observations.iter().map(|observation| &*observation.native_key).collect()
    }

    #[test]
    fn every_mistake_is_named_by_its_line_and_keeps_no_other_back() {
        let (nameless, huge) = (
            GOOD.replace(r#""native_key":"1","#, ""),
            GOOD.replace("ASSERT\"", &format!("ASSERT\",\"name\":\"{}\"", "x".repeat(1 << 20))),
        );
        let content = format!("{GOOD}\n\n{nameless}\ngarbage\n{huge}\n{GOOD}");
        let read = read(content.as_bytes()).unwrap();
        assert_eq!(keys(&read), ["1", "1"]);
        let told: Vec<_> = read.refused.iter().map(|mistake| (mistake.at, &*mistake.why)).collect();
        let expected = [(3, "native_key"), (4, "no event in JSON"), (5, "over the limit")];
        for ((at, why), (line, word)) in told.iter().zip(expected) {
            assert!(*at == At::Line(line) && why.contains(word), "{told:?}");
        }
        assert_eq!(told.len(), expected.len());
    }

    /// What is behind would be read from the middle of a line.
    #[test]
    fn nothing_is_read_behind_a_line_that_is_too_long() {
        let content = format!("{GOOD}\n{}\n{GOOD}\n", "x".repeat(9 << 20));
        assert!(read(content.as_bytes()).unwrap_err().contains("the-file, line 2: longer than"));
    }

    #[test]
    fn a_container_is_read_record_by_record() {
        let read = read(&container(&[observation("1"), observation(""), observation("3")])).unwrap();
        assert_eq!(keys(&read), ["1", "3"]);
        assert_eq!(read.refused[0].at, At::Record(2));
        assert!(read.observations.iter().all(|observation| observation.id.len() == 64), "known by its datum");
    }

    #[test]
    fn a_container_that_is_cut_or_damaged_says_behind_which_record() {
        let file = container(&[observation("1"), observation("2")]);
        let cut = read(&file[..file.len() - 1]).unwrap_err();
        assert!(cut.contains("the-file behind record 1: it ends in the middle"), "{cut}");
        let mut damaged = file.clone();
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        let damaged = read(&damaged).unwrap_err();
        assert!(damaged.contains("the-file behind record 1: a block is damaged"), "{damaged}");
    }

    /// What is checked is read again to be published.
    #[test]
    fn a_file_is_read_from_its_start_each_time() {
        for content in [GOOD.as_bytes().to_vec(), container(&[observation("1")])] {
            let input = input(&content);
            for _ in 0..2 {
                let chunks: Vec<_> = input.clone().chunks().map(Result::unwrap).collect();
                assert_eq!(chunks.iter().flat_map(keys).collect::<Vec<_>>(), ["1"]);
            }
        }
        let pipe = kept(GOOD.as_bytes()).unwrap();
        assert_eq!(pipe.metadata().unwrap().len(), GOOD.len() as u64);
    }
}
