//! The long poll that the stores in this process share.

use std::{future::Future, time::Duration};

use tokio::{sync::watch, time::timeout};

use crate::store::{LogError, Read};

/// Reads; where there is nothing yet, waits until the end moves, the topic goes, or `wait` is over,
/// and reads again.
///
/// `end` must have been subscribed to before, so that no append falls between reading and waiting.
pub(crate) async fn read_or_wait<F>(
    mut end: watch::Receiver<u64>,
    wait: Duration,
    read: impl Fn() -> F,
) -> Result<Read, LogError>
where
    F: Future<Output = Result<Read, LogError>>,
{
    let found = read().await?;
    if !found.events.is_empty() || wait.is_zero() {
        return Ok(found);
    }
    // Whichever of the three it was, the second read tells.
    let _ = timeout(wait, end.changed()).await;
    read().await
}
