//! Identity, step by step: `cargo bench -p serviceradar-tests --bench identity`.
//!
//! 500,000 devices, 2 records each, 3 claims a record; one worker. The operator of components beside differential's
//! `propagate` and a plain union-find, which must agree; then steps 1 to 7, and 1 to 6, a hub, and silence. Each measurement has a
//! process of its own, so that none finds the memory of another; times are CPU times. `-- write FILE` writes the
//! observations, for `resolve`.

mod graph;
mod measure;
mod steps;
mod world;

use std::{collections::BTreeMap, error::Error, process::Command};

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What a process found out, by name.
type Figures = BTreeMap<String, String>;

fn main() -> Result<()> {
    let given: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match given.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => all(),
        ["write", file] => world::write(file),
        ["measure", what] => {
            serviceradar_ops::memory::use_small_pages();
            let figures = match what {
                "operator" => graph::operator(),
                "union-find" => graph::union_find(),
                "propagate" => graph::propagate(),
                "pauses" => graph::pauses(),
                "hub" => graph::hub(),
                "steps" => steps::steps()?,
                "steps to 6" => steps::steps_to_6()?,
                "hub of devices" => steps::hub()?,
                "idle" => steps::idle()?,
                other => return Err(format!("there is no measurement {other:?}").into()),
            };
            figures.iter().for_each(|(name, value)| println!("{name}\t{value}"));
            Ok(())
        }
        _ => Err("give nothing, or `write FILE`".into()),
    }
}

/// Runs a measurement in a process of its own.
fn run(what: &str) -> Result<Figures> {
    let output = Command::new(std::env::current_exe()?).args(["measure", what]).output()?;
    if !output.status.success() {
        return Err(format!("{what}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let text = String::from_utf8(output.stdout)?;
    let figures = text.lines().filter_map(|line| line.split_once('\t'));
    Ok(figures.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

fn all() -> Result<()> {
    println!("Times are CPU times of one thread.");
    println!("{:<58} {:>14} {:>14} {:>14}  wanted", "", "ours", "propagate", "union-find");
    let (ours, theirs, plain) = (run("operator")?, run("propagate")?, run("union-find")?);
    let row = |name: &str, key: &str, wanted: &str| {
        let of = |figures: &Figures| figures.get(key).cloned().unwrap_or_default();
        println!("{name:<58} {:>14} {:>14} {:>14}  {wanted}", of(&ours), of(&theirs), of(&plain));
    };
    row("components: load in batches of 10,000, records/s", "load", ">= 1,000,000");
    row("components: load at once, records/s", "load at once", "");
    row("components: batches of 10,000 changed records, records/s", "changes", ">= 300,000");
    row("components: such a batch, p99, ms", "batch p99", "<= 50");
    row("components: one changed record, p50, us", "one p50", "<= 100");
    row("components: memory per device, bytes", "memory", "<= 900");
    row("components: digest of the partition, loaded", "loaded", "equal");
    row("components: digest of the partition, changed", "changed", "equal");
    for (what, rows) in [
        ("pauses", &[("components: longest of 200 batches, 2,000,000 records, ms", "longest", "<= 100")][..]),
        (
            "hub",
            &[
                ("components: a hub of 10,000 records joins, ms", "join", "<= 100"),
                ("components: it splits, ms", "split", "<= 100"),
            ],
        ),
        (
            "steps",
            &[
                ("before: normalise, records/s", "normalise", ""),
                ("before: fold, records/s", "fold", ""),
                ("steps 1-7 at once, records/s", "load", ""),
                ("steps 1-7: batches of 10,000 changed records, records/s", "changes", ">= 300,000"),
                ("steps 1-7: such a batch, p99, ms", "batch p99", "<= 50"),
                ("fold and steps 1-7: the same, records/s", "with fold: changes", ""),
                ("fold and steps 1-7: such a batch, p99, ms", "with fold: batch p99", ""),
                ("fold and steps 1-7: one changed record, p50, us", "one p50", "<= 100"),
                ("fold and steps 1-7: memory per device, bytes", "memory", "<= 2,500"),
            ],
        ),
        ("steps to 6", &[("steps 1-6 at once, no record with an address, records/s", "load", ">= 300,000")]),
        (
            "hub of devices",
            &[
                ("steps 1-7: a hub of 10,000 records joins, ms", "join", "<= 100"),
                ("steps 1-7: it splits, ms", "split", "<= 100"),
            ],
        ),
        (
            "idle",
            &[
                ("1,000,000 devices: a TICK, ms of CPU", "tick", "<= 600"),
                ("1,000,000 devices: memory per device, rows told, bytes", "memory", "<= 2,500"),
            ],
        ),
    ] {
        let figures = run(what)?;
        for (name, key, wanted) in rows {
            let measured = figures.get(*key).map_or("", String::as_str);
            println!("{name:<58} {measured:>14} {:>14} {:>14}  {wanted}", "", "");
        }
    }
    for key in ["loaded", "changed"] {
        if ours.get(key) != theirs.get(key) || ours.get(key) != plain.get(key) {
            return Err(format!("the partitions disagree: {key}").into());
        }
    }
    Ok(())
}
