//! Metrics of a verb that ends, in a file: nobody would scrape a process that is gone. The textfile collector of Prometheus'
//! node exporter reads such files, `*.prom` in one folder.

use std::{
    fs::{self, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, Once, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use serviceradar_ops::metrics::{self, Metric};
use serviceradar_schemas::time::{Clock, SECOND, SystemClock};
use tempfile::NamedTempFile;

/// Between two writes while a step goes on.
const WRITE_EVERY: Duration = Duration::from_secs(5);

/// The file of this process; none where no folder is configured.
pub(crate) static TEXTFILE: OnceLock<Textfile> = OnceLock::new();

/// A file of one tenant and verb. It is there from the first step on that ever was, and always whole.
pub(crate) struct Textfile {
    path: PathBuf,
    tenant: String,
    verb: String,
    begun: Instant,
    /// Its own: what a verb serves at /metrics is not in the file.
    recorder: PrometheusRecorder,
    written: Mutex<Option<Instant>>,
    warned: Once,
}

impl Textfile {
    /// Of a run that begins now. What the run before left of its end holds until this one ends.
    pub(crate) fn begin(dir: &Path, tenant: &str, verb: &str) -> Self {
        let textfile = Self {
            path: dir.join(format!("serviceradar_{tenant}_{}.prom", verb.replace(' ', "_"))),
            tenant: tenant.to_owned(),
            verb: verb.to_owned(),
            begun: Instant::now(),
            recorder: PrometheusBuilder::new().build_recorder(),
            written: Mutex::new(None),
            warned: Once::new(),
        };
        let before = fs::read_to_string(&textfile.path).unwrap_or_default();
        textfile.measure(|of| {
            metrics::describe();
            Metric::VerbRunning.set(of, 1.0);
            for metric in [Metric::VerbFailed, Metric::VerbLastSuccess] {
                let value = |line: &str| {
                    line.strip_prefix(metric.row().name)?.rsplit_once(' ')?.1.parse::<f64>().ok()
                };
                metric.set(of, before.lines().find_map(value).unwrap_or(0.0));
            }
        });
        textfile
    }

    /// A step has come to `done` of `total` so long after its begin. It is written now and then, or at once.
    pub(crate) fn step(&self, name: &str, (done, total): (u64, u64), since: Duration, at_once: bool) {
        let seconds = since.as_secs_f64();
        let per_second = if seconds > 0.0 { done as f64 / seconds } else { 0.0 };
        self.measure(|[tenant, verb]| {
            let of = [tenant, verb, name];
            Metric::StepDone.set(of, done as f64);
            Metric::StepPerSecond.set(of, per_second);
            Metric::StepSeconds.set(of, seconds);
            Metric::StepSize.set(of, total as f64);
        });
        self.write(at_once);
    }

    /// The verb has ended. One that never had a step has no file, and gets none.
    pub(crate) fn end(&self, failed: bool) {
        let has_steps = self.written.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if !has_steps && !self.path.exists() {
            return;
        }
        self.measure(|of| {
            Metric::VerbRunning.set(of, 0.0);
            Metric::VerbFailed.set(of, f64::from(failed));
            if !failed {
                Metric::VerbLastSuccess.set(of, (SystemClock.now() / SECOND) as f64);
            }
        });
        self.write(true);
    }

    /// Sets what is in the file; `set` is given the labels of tenant and verb.
    fn measure(&self, set: impl FnOnce([&str; 2])) {
        ::metrics::with_local_recorder(&self.recorder, || set([&*self.tenant, &*self.verb]));
    }

    fn write(&self, at_once: bool) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if !at_once && written.is_some_and(|at| at.elapsed() < WRITE_EVERY) {
            return;
        }
        *written = Some(Instant::now());
        self.measure(|of| Metric::VerbSeconds.set(of, self.begun.elapsed().as_secs_f64()));
        if let Err(error) = self.replace() {
            self.warned.call_once(|| {
                tracing::warn!(
                    "{} is not written, and the work goes on without: {error}; let metrics.textfile_dir be a folder that is there, and that this user may write to",
                    self.path.display()
                );
            });
        }
    }

    /// By another file that takes its name: whoever reads it, or kills this process, finds one of them whole.
    fn replace(&self) -> io::Result<()> {
        let mut file = NamedTempFile::new_in(self.path.parent().unwrap_or(Path::new("")))?;
        file.write_all(self.recorder.handle().render().as_bytes())?;
        // The node exporter is another user.
        file.as_file().set_permissions(Permissions::from_mode(0o644))?;
        file.persist(&self.path)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that is killed ends nothing; neither does the next one's begin undo what an earlier end said.
    #[test]
    fn a_run_that_is_killed_leaves_that_it_runs_and_what_the_one_before_came_to() {
        let dir = tempfile::tempdir().unwrap();
        let begin = || Textfile::begin(dir.path(), "acme", "replay archive");
        let step = |run: &Textfile| run.step("archive", (30, 40), Duration::from_secs(2), true);
        let has = |line: &str| {
            let path = dir.path().join("serviceradar_acme_replay_archive.prom");
            let text = fs::read_to_string(path).unwrap();
            assert!(text.lines().any(|of| of == line), "{line}: {text}");
        };
        let failed = begin();
        step(&failed);
        failed.end(true);
        has("serviceradar_verb_running{tenant=\"acme\",verb=\"replay archive\"} 0");

        step(&begin());
        has("serviceradar_verb_running{tenant=\"acme\",verb=\"replay archive\"} 1");
        has("serviceradar_verb_failed{tenant=\"acme\",verb=\"replay archive\"} 1");
        for (metric, value) in [("done", 30), ("size", 40), ("per_second", 15), ("seconds", 2)] {
            has(&format!(
                "serviceradar_step_{metric}{{tenant=\"acme\",verb=\"replay archive\",step=\"archive\"}} {value}"
            ));
        }
    }

    #[test]
    fn a_verb_without_a_step_has_no_file_and_one_that_fails_before_its_first_is_told_of_where_there_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("serviceradar_acme_reseed.prom");
        Textfile::begin(dir.path(), "acme", "reseed").end(true);
        assert!(!path.exists());
        fs::write(&path, "serviceradar_verb_last_success_timestamp_seconds{tenant=\"acme\"} 17\n").unwrap();
        Textfile::begin(dir.path(), "acme", "reseed").end(true);
        let text = fs::read_to_string(path).unwrap();
        let of = "{tenant=\"acme\",verb=\"reseed\"}";
        assert!(text.contains(&format!("serviceradar_verb_failed{of} 1\n")), "{text}");
        assert!(
            text.contains(&format!("serviceradar_verb_last_success_timestamp_seconds{of} 17\n")),
            "{text}"
        );
    }
}
