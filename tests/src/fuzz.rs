//! Fuzzing on the stable toolchain: a target is given what once failed, and then, for a time, changed inputs.
//!
//! `FUZZ_S` says for how many seconds (default 2; `.ci/run` asks for 60). Inputs are valid ones, saved or random, with
//! bytes changed, taken away, repeated and put in. One that fails is made as small as it gets, shown, and saved in
//! `tests/data/fuzz/<target>/`, whose inputs each run begins with: a failure stays until it is mended, and its input
//! is committed with the mending.

use std::{
    cell::Cell,
    env, fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{TestCaseError, TestError, TestRunner},
};
use sha2::{Digest, Sha256};

/// How long a target runs where nothing is asked for, seconds: enough to notice a target that always fails.
const DEFAULT_S: u64 = 2;
/// Longest time that one input may take: an event that takes longer holds up its log partition.
const INPUT_MAX: Duration = Duration::from_secs(5);
/// Inputs between two looks at the clock.
const ROUND_INPUTS: u32 = 200;
/// Inputs that are tried to make a failing one smaller.
const SMALLER_INPUTS: u32 = 20_000;
/// How much of a failing input is shown, bytes; the file has all of it.
const SHOWN_BYTES: usize = 2_000;
/// Most changes to one input: after a few, most are refused at the first.
const CHANGES_MAX: usize = 6;
/// Most bytes that one change takes away, or repeats.
const STRETCH_MAX: usize = 64;

/// How a property ends on one input.
pub type Checked = Result<(), TestCaseError>;

/// Runs a target: `check` must hold on saved inputs, and on all that `inputs` makes.
pub fn fuzz(target: &str, inputs: impl Strategy<Value = Vec<u8>>, check: impl Fn(&[u8]) -> Checked) {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/data/fuzz")).join(target);
    for (file, input) in saved(&folder) {
        if let Err(error) = check(&input) {
            panic!("{target} fails on {file}: {error}");
        }
    }
    let seconds =
        env::var("FUZZ_S").map_or(DEFAULT_S, |text| text.parse().expect("FUZZ_S is a number of seconds"));
    let (begin, end) = (Instant::now(), Duration::from_secs(seconds));
    let tried = Cell::new(0_u64);
    let timed = |input: Vec<u8>| {
        let begin = Instant::now();
        tried.set(tried.get() + 1);
        check(&input)?;
        let took = begin.elapsed();
        prop_assert!(took < INPUT_MAX, "it took {took:?}");
        Ok(())
    };
    while begin.elapsed() < end {
        let mut runner = TestRunner::new(ProptestConfig {
            cases: ROUND_INPUTS,
            failure_persistence: None,
            max_shrink_iters: SMALLER_INPUTS,
            ..ProptestConfig::default()
        });
        match runner.run(&inputs, timed) {
            Ok(()) => {}
            Err(TestError::Abort(why)) => panic!("{target}: no inputs: {why}"),
            Err(TestError::Fail(why, input)) => {
                let name = serviceradar_schemas::hex::encode(&Sha256::digest(&input)[..8]);
                let file = folder.join(name);
                fs::create_dir_all(&folder).and_then(|()| fs::write(&file, &input)).unwrap();
                let shown = input[..input.len().min(SHOWN_BYTES)].escape_ascii();
                panic!(
                    "{target} fails: {why}\nthe next run begins with {}, which is\n{shown}",
                    file.display()
                );
            }
        }
    }
    println!("{target}: {} inputs in {:?}", tried.get(), begin.elapsed());
}

/// What failed once, in the order of the names.
fn saved(folder: &PathBuf) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.display().to_string(), fs::read(&path).unwrap())).collect()
}

/// A change to bytes.
#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Flip(Index, u8),
    Remove(Index, usize),
    Repeat(Index, usize, Index),
    Insert(Index, Vec<u8>),
    Cut(Index),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        // An index of nothing does not exist; of one more than there is, the end does.
        let place = |at: &Index, bytes: &Vec<u8>| at.index(bytes.len() + 1);
        let stretch = |at: usize, length: usize, bytes: &Vec<u8>| at..(at + length).min(bytes.len());
        match self {
            Self::Set(at, byte) if !bytes.is_empty() => *at.get_mut(bytes) = *byte,
            Self::Flip(at, bit) if !bytes.is_empty() => *at.get_mut(bytes) ^= 1 << bit,
            Self::Set(..) | Self::Flip(..) => {}
            Self::Remove(at, length) => {
                drop(bytes.drain(stretch(place(at, bytes), *length, bytes)));
            }
            Self::Repeat(from, length, to) => {
                let piece = bytes[stretch(place(from, bytes), *length, bytes)].to_vec();
                let to = place(to, bytes);
                drop(bytes.splice(to..to, piece));
            }
            Self::Insert(at, piece) => {
                let at = place(at, bytes);
                drop(bytes.splice(at..at, piece.iter().copied()));
            }
            Self::Cut(at) => bytes.truncate(place(at, bytes)),
        }
    }
}

/// Inputs with a few changes, or none. What is put in is a token, or any bytes.
pub fn changed(
    inputs: impl Strategy<Value = Vec<u8>>,
    tokens: &'static [&'static [u8]],
) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(tokens).prop_map(<[u8]>::to_vec),
        prop::collection::vec(any::<u8>(), 1..9),
    ];
    let at = any::<Index>;
    let change = prop_oneof![
        3 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        3 => (at(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        2 => (at(), 1..STRETCH_MAX).prop_map(|(at, length)| Change::Remove(at, length)),
        2 => (at(), 1..STRETCH_MAX, at()).prop_map(|(from, length, to)| Change::Repeat(from, length, to)),
        4 => (at(), piece).prop_map(|(at, piece)| Change::Insert(at, piece)),
        1 => at().prop_map(Change::Cut),
    ];
    (inputs, prop::collection::vec(change, 0..=CHANGES_MAX)).prop_map(|(mut bytes, changes)| {
        for change in changes {
            change.apply(&mut bytes);
        }
        bytes
    })
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// A harness that lets everything pass would be no news at all.
    #[test]
    fn what_fails_is_made_small_and_saved_and_fails_until_it_is_mended() {
        const TARGET: &str = "of_the_harness";
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/data/fuzz")).join(TARGET);
        let inputs = || changed(Just(b"valid".to_vec()), &[b"\0"]);
        let told = |bad: fn(&[u8]) -> bool| {
            let run = || {
                fuzz(TARGET, inputs(), |input| {
                    assert!(!bad(input), "it is bad");
                    Ok(())
                })
            };
            let panic = catch_unwind(AssertUnwindSafe(run)).err()?;
            Some(panic.downcast_ref::<String>().cloned().unwrap_or_default())
        };
        let has_nul: fn(&[u8]) -> bool = |input| input.contains(&0);
        let first = told(has_nul);
        let kept = saved(&folder);
        let again = catch_unwind(|| {
            fuzz(TARGET, inputs(), |input| {
                prop_assert!(!input.contains(&0), "it is bad");
                Ok(())
            })
        });
        fs::remove_dir_all(&folder).unwrap();
        assert!(first.unwrap().contains("it is bad"));
        assert_eq!(kept.len(), 1);
        assert!(kept[0].1.contains(&0) && kept[0].1.len() <= 6, "{:?}", kept[0].1);
        assert!(again.is_err(), "the saved input is not tried first");
        assert_eq!(told(|_| false), None);
    }
}
