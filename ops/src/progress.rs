//! How far a piece of work has come, on stderr: a bar on a terminal, a JSON line a second elsewhere; and as metrics, where
//! they are wanted.

use std::{
    io::{self, IsTerminal, Write},
    sync::LazyLock,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;

use crate::textfile::TEXTFILE;

/// Between two times that the same work is told of.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// All bars of the process: what else is written to stderr makes way for them.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Whether stderr is read by a person.
pub(crate) fn on_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Does what writes to the screen: bars make way meanwhile.
pub(crate) fn aside<T>(write: impl FnOnce() -> T) -> T {
    BARS.suspend(write)
}

/// A piece of work under way. Gone from the screen when dropped.
pub(crate) struct Progress {
    step: &'static str,
    begun: Instant,
    told: Option<Instant>,
    done: u64,
    total: u64,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Begins; `what` is shown beside the bar, `step` is its name in lines and metrics.
    pub(crate) fn begin(step: &'static str, what: &str) -> Self {
        let bar = on_terminal().then(|| {
            let template =
                "{spinner} {msg:28} {wide_bar} {human_pos}/{human_len} {per_sec} {elapsed}, {eta} left";
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = BARS.add(ProgressBar::new(0).with_style(style).with_message(what.to_owned()));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        let progress = Self { step, begun: Instant::now(), told: None, done: 0, total: 0, bar };
        progress.measure(true);
        progress
    }

    /// It has come to `done` of `total`.
    pub(crate) fn at(&mut self, done: u64, total: u64) {
        (self.done, self.total) = (done, total);
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        }
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told = Some(Instant::now());
            self.tell();
            self.measure(false);
        }
    }

    /// It is done; what came of it stays on the screen.
    pub(crate) fn end(mut self, done: u64, result: &str) {
        (self.done, self.total) = (done, done);
        self.tell();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            let seconds = self.begun.elapsed().as_secs_f64();
            // Nothing can be done about a stderr that is gone.
            BARS.println(format!("✓ {result} ({seconds:.1} s)")).ok();
        }
    }

    /// Where no bar tells it.
    fn tell(&self) {
        if self.bar.is_some() {
            return;
        }
        let (done, total) = (self.done, self.total);
        let seconds = self.begun.elapsed().as_millis() as f64 / 1_000.0;
        let per_second = (seconds > 0.0 && done > 0).then(|| done as f64 / seconds);
        let left = per_second.map(|rate| (total.saturating_sub(done) as f64 / rate).round());
        let line = json!({
            "step": self.step, "done": done, "total": total, "seconds": seconds,
            "per_second": per_second.map(f64::round), "seconds_left": left,
        });
        writeln!(io::stderr(), "{line}").ok();
    }

    fn measure(&self, at_once: bool) {
        if let Some(textfile) = TEXTFILE.get() {
            textfile.step(self.step, (self.done, self.total), self.begun.elapsed(), at_once);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.measure(true);
    }
}

/// Stderr for the log: bars make way while it is written to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        BARS.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
