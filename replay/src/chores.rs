//! Chores: what a driver does every so often.

use std::time::{Duration, Instant};

use serviceradar_log::{NewEvent, Publisher};
use serviceradar_schemas::{Action, Observation, encode_framed, topics::Stream};

use crate::{
    driver::{Driver, DriverError, Running, own_source},
    topics,
};

/// How often a TICK is published.
const TICK_EVERY: Duration = Duration::from_secs(60);
/// How often a writer says that it is alive.
pub(crate) const BEAT_EVERY: Duration = Duration::from_secs(5);
/// How often witnesses are read back.
const WITNESS_EVERY: Duration = Duration::from_secs(60);
/// How often new log partitions are looked for.
const DISCOVER_EVERY: Duration = Duration::from_secs(10);

/// How often a writer looks whether it is asked to stop, and one that leads whether somebody stands by.
const STOP_EVERY: Duration = Duration::from_millis(500);

/// How often the settings of the log are checked.
const SETTINGS_EVERY: Duration = Duration::from_secs(60 * 60);

/// How often what is no longer kept is forgotten.
const RETENTION_EVERY: Duration = Duration::from_secs(60 * 60);

/// When a chore is due.
pub(crate) struct Chore {
    every: Duration,
    last: Option<Instant>,
}

impl Chore {
    fn new(every: Duration) -> Self {
        Self { every, last: Some(Instant::now()) }
    }

    /// Whether it is due; then it is not again for a while.
    pub(crate) fn is_due(&mut self) -> bool {
        let due = self.last.is_none_or(|last| last.elapsed() >= self.every);
        if due {
            self.last = Some(Instant::now());
        }
        due
    }
}

/// When each is due.
pub(crate) struct Chores {
    pub(crate) beat: Chore,
    pub(crate) tick: Chore,
    pub(crate) discover: Chore,
    pub(crate) witness: Chore,
    pub(crate) settings: Chore,
    pub(crate) stop: Chore,
    pub(crate) retention: Chore,
}

impl Chores {
    /// None is due yet but the settings: whoever started the driver need not have looked.
    pub(crate) fn new() -> Self {
        Self {
            beat: Chore::new(BEAT_EVERY),
            tick: Chore::new(TICK_EVERY),
            discover: Chore::new(DISCOVER_EVERY),
            witness: Chore::new(WITNESS_EVERY),
            retention: Chore::new(RETENTION_EVERY),
            stop: Chore::new(STOP_EVERY),
            settings: Chore { every: SETTINGS_EVERY, last: None },
        }
    }
}

impl Driver {
    /// Does what is due.
    pub(crate) async fn do_chores(
        &self,
        running: &mut Running,
        chores: &mut Chores,
    ) -> Result<(), DriverError> {
        if chores.beat.is_due() {
            self.keep(running.committer.writer()?.beat().await)?;
        }
        if chores.stop.is_due() && running.is_live {
            self.look_for_stop(running).await?;
            self.look_for_stand_by(running).await?;
        }
        if chores.tick.is_due() && running.is_live && self.config.ticks {
            self.tick().await;
        }
        if chores.discover.is_due() {
            self.open_lanes(running, Vec::new()).await?;
        }
        if chores.witness.is_due() {
            self.check_witnesses(running).await?;
        }
        if chores.retention.is_due() && running.is_live {
            self.forget_journals(running);
        }
        if chores.settings.is_due() {
            self.check_settings().await;
        }
        Ok(())
    }

    /// On a task of its own: what is old holds up nothing that is new.
    fn forget_journals(&self, running: &Running) {
        let Some(kept) = self.config.journals_kept else {
            return;
        };
        // A clock that has leapt ahead must not take away what is young: the log's bounds it.
        let times = running.lanes.values().map(|lane| lane.frontier().intake_max);
        let Some(log_time) = times.max().filter(|time| *time > i64::MIN) else {
            return;
        };
        let now = self.config.clock.now().min(log_time);
        let before = now.saturating_sub(kept.as_micros().try_into().unwrap_or(i64::MAX));
        let views = self.config.views.clone();
        tokio::spawn(async move {
            if let Err(error) = views.forget_journals(before).await {
                tracing::warn!(%error, "old rows of journals stay for another hour");
            }
        });
    }

    async fn tick(&self) {
        let config = &self.config;
        let tick = Observation {
            event_time: config.clock.now(),
            partition: "default".to_owned(),
            source: own_source(&config.writer),
            native_key: "tick".to_owned(),
            action: Action::Tick,
            ..Observation::default()
        };
        let event = NewEvent {
            key: Some(tick.record_key().into_bytes().into()),
            value: Some(encode_framed(&tick, config.framings.observations).into()),
            headers: Vec::new(),
        };
        let publisher = Publisher::new(config.log.clone(), Stream::Observations.topic(&config.tenant));
        if let Err(error) = publisher.publish(vec![event]).await {
            tracing::warn!(%error, "the TICK was not published");
        }
    }

    /// Looks whether settings contradict what the streams need. The pipeline goes on all the same: what the log still
    /// has is read, and nothing would be saved by stopping.
    async fn check_settings(&self) {
        match topics::setting_problems(&*self.config.log, &self.config.tenant).await {
            Ok(problems) => {
                let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
                for problem in &problems {
                    tracing::error!(problem, "the log is set so that it may lose events");
                }
                self.board.update(|status| status.setting_problems = problems);
            }
            Err(error) => tracing::warn!(%error, "the settings of the log could not be checked"),
        }
    }

    async fn check_witnesses(&self, running: &mut Running) -> Result<(), DriverError> {
        for (partition, lane) in &mut running.lanes {
            match crate::witness::check(&*self.config.log, partition, &lane.to_check()).await {
                Ok(checked) => {
                    checked?;
                    lane.is_checked();
                }
                Err(error) if error.is_unavailable() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
