//! Standing by: a newcomer's dataflow follows the writer's, so that little is left to do when it takes over.
//!
//! It is put back from the views once, and then reads from the log what the writer has committed since. What a dataflow
//! holds depends on the set of events alone: so it is the writer's own, and what it would put out is in the views.

use serviceradar_materializers::views::{Frontier, Resume, ViewsError};
use serviceradar_streams::engine::{Batch, Engine, EngineError};

use crate::{
    between::Between,
    driver::{Driver, DriverError},
    topics::Partition,
};

/// A dataflow that follows, once there is something to follow.
#[derive(Default)]
pub(crate) struct Follower(Option<Following>);

struct Following {
    generation: i32,
    engine: Engine,
    /// The epoch that it has followed to.
    epoch: u64,
    /// How far it has come.
    frontiers: Vec<Frontier>,
}

impl Follower {
    /// The epoch that it has followed to; 0 before it follows any.
    pub(crate) fn epoch(&self) -> u64 {
        self.0.as_ref().map_or(0, |following| following.epoch)
    }
}

impl Driver {
    /// Follows to where the tenant stands now. What goes wrong costs no more than time later: whoever takes the tenant
    /// without a dataflow puts one back then.
    pub(crate) async fn follow_standing(&self, follower: &mut Follower) {
        if let Err(error) = self.try_follow(follower).await {
            tracing::debug!(%error, "does not follow for now");
            follower.0 = None;
        }
    }

    /// Says how far it has followed.
    pub(crate) async fn tell_standing(&self, followed: u64) -> Result<(), ViewsError> {
        let (tenant, writer) = (&self.config.tenant, &self.config.writer);
        self.config.views.stand_by(tenant, writer, followed).await
    }

    async fn try_follow(&self, follower: &mut Follower) -> Result<(), DriverError> {
        let (views, tenant) = (&self.config.views, &self.config.tenant);
        let standing = views.standing(tenant, None).await?;
        if follower.0.as_ref().is_none_or(|following| !following.is_before(&standing)) {
            // Views that are empty, or being filled, have nothing to be put back.
            if standing.is_empty() {
                return Ok(());
            }
            let read = async |put| views.standing(tenant, Some(put)).await;
            let (engine, Resume { generation, epoch, frontiers, .. }) = self.restore(read).await?;
            follower.0 = Some(Following { generation, engine, epoch, frontiers });
        }
        self.follow(follower, &standing).await
    }

    /// The dataflow at the place where the tenant was taken; none where it has to be put back.
    pub(crate) async fn arrive(&self, follower: &mut Follower, taken: &Resume) -> Option<Engine> {
        follower.0.as_ref().filter(|following| following.is_before(taken))?;
        let followed = self.follow(follower, taken).await;
        let following = follower.0.take()?;
        match followed {
            Ok(()) => Some(following.engine),
            Err(error) => {
                tracing::warn!(%error, "did not follow to the end, and reads the views back");
                None
            }
        }
    }

    /// Takes in what the log holds up to where the tenant stands.
    async fn follow(&self, follower: &mut Follower, to: &Resume) -> Result<(), DriverError> {
        for end in &to.frontiers {
            let Some(following) = follower.0.take() else {
                return Ok(());
            };
            follower.0 = Some(self.follow_in(following, end).await?);
        }
        if let Some(following) = &mut follower.0 {
            following.epoch = to.epoch;
        }
        Ok(())
    }

    /// The same in one log partition.
    async fn follow_in(&self, mut following: Following, end: &Frontier) -> Result<Following, DriverError> {
        let Frontier { topic, log_partition, .. } = end;
        let at = Frontier::of(&following.frontiers, topic, *log_partition);
        if at.next_offset >= end.next_offset {
            return Ok(following);
        }
        let partition = Partition { topic: topic.clone(), log_partition: *log_partition };
        let mut between = Between::new(&self.config, partition, at);
        while let Some(chunk) = between.next(&self.config, end.next_offset).await? {
            let mut engine = following.engine;
            let worked = tokio::task::spawn_blocking(move || {
                engine.epoch(Batch { sightings: chunk.sightings, decisions: chunk.decisions })?;
                Ok::<_, EngineError>(engine)
            });
            following.engine = worked.await.map_err(|error| DriverError::Task(error.to_string()))??;
        }
        following.frontiers.retain(|known| (&known.topic, known.log_partition) != (topic, *log_partition));
        following.frontiers.push(end.clone());
        Ok(following)
    }
}

impl Following {
    /// Whether it can go on to where the tenant stands: the same generation, not emptied since, and nowhere behind it.
    fn is_before(&self, standing: &Resume) -> bool {
        let is_before = |at: &Frontier| {
            Frontier::of(&standing.frontiers, &at.topic, at.log_partition).next_offset >= at.next_offset
        };
        self.generation == standing.generation
            && self.epoch >= standing.truncated
            && self.frontiers.iter().all(is_before)
    }
}
