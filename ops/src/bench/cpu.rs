//! Processor time by part of the pipeline, as Linux tells it. Elsewhere nothing is told.

use std::{collections::BTreeMap, fs, path::Path, sync::LazyLock};

/// Parts of this process by the beginning of their threads' names; what is none of these is the rest.
const THREADS: [(&str, &str); 3] = [("dataflow", "dataflow"), ("log-writer", "log"), ("rdk", "Kafka client")];
/// Reading, decoding, what is sent to the database.
const REST: &str = "driver";
const POSTGRES: &str = "PostgreSQL";

/// Clock ticks a second, in which Linux counts processor time.
static TICKS: LazyLock<f64> = LazyLock::new(|| {
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten();
    ticks.unwrap_or(100) as f64
});

/// Seconds that this thread has spent. One that has ended has taken them with it.
pub(crate) fn of_this_thread() -> f64 {
    let spent = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID.now();
    spent.map_or(0.0, |spent| std::time::Duration::from(spent).as_secs_f64())
}

/// Seconds spent since the start, by part.
pub(crate) struct Cpu(BTreeMap<&'static str, f64>);

impl Cpu {
    /// Until now; `postgres` is the process of the database's server, where it is ours.
    pub(crate) fn now(postgres: Option<u32>) -> Self {
        let mut parts = BTreeMap::new();
        for (name, _, spent) in stats(Path::new("/proc/self/task")) {
            let part =
                THREADS.iter().find(|(begin, _)| name.starts_with(begin)).map_or(REST, |(_, part)| part);
            *parts.entry(part).or_default() += spent;
        }
        if let Some(postgres) = postgres {
            let of_server = stats(Path::new("/proc")).filter(|(_, parent, _)| *parent == postgres);
            parts.insert(POSTGRES, of_server.map(|(_, _, spent)| spent).sum());
        }
        Self(parts)
    }

    /// What was spent since then.
    pub(crate) fn since(&self, then: &Self) -> BTreeMap<&'static str, f64> {
        // Less only where a thread has ended.
        let spent = |(part, now): (&&'static str, &f64)| {
            (*part, (now - then.0.get(part).copied().unwrap_or_default()).max(0.0))
        };
        self.0.iter().map(spent).collect()
    }
}

/// Name, parent, and seconds of each process or thread of a folder.
fn stats(folder: &Path) -> impl Iterator<Item = (String, u32, f64)> {
    fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| {
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let (begin, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        // Of proc(5): state, parent, …, the 12th and 13th after the name are ticks in user and kernel mode.
        let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
        let spent = (ticks(11)? + ticks(12)?) / *TICKS;
        Some((begin.split_once('(')?.1.to_owned(), fields.get(1)?.parse().ok()?, spent))
    })
}
