//! A server that is kept running: where its process ends by itself, it is started again.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use super::{Binaries, folder::Folder, server::Server};

/// How often it is looked whether the server runs.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest pause before a server that ends again and again is started again.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A server that ran for so long did not end because of its start.
const RAN_WELL: Duration = Duration::from_secs(60);

/// The server of a folder. Stops when dropped, which waits for it.
#[derive(Debug)]
pub(super) struct Kept {
    /// None once it is stopped.
    server: Arc<Mutex<Option<Server>>>,
    // Last: given up when the server is gone.
    _folder: Arc<Folder>,
}

impl Kept {
    /// Keeps a server running, in its folder and on its port.
    pub(super) fn new(server: Server, folder: Folder, binaries: &Binaries, port: u16) -> Self {
        let (server, folder) = (Arc::new(Mutex::new(Some(server))), Arc::new(folder));
        let (of_server, of_folder) = (Arc::downgrade(&server), Arc::downgrade(&folder));
        tokio::spawn(keep(of_server, of_folder, binaries.clone(), port));
        Self { server, _folder: folder }
    }

    /// Process id of the server; none once it is stopped.
    pub(super) fn pid(&self) -> Option<u32> {
        held(&self.server).as_ref().map(Server::pid)
    }

    /// Whether the server runs at this moment.
    pub(super) fn is_running(&self) -> bool {
        held(&self.server).as_mut().is_some_and(|server| server.exited().is_none())
    }

    /// Stops it for good, and waits.
    pub(super) async fn stop(self) {
        let server = held(&self.server).take();
        if let Some(mut server) = server {
            server.stop().await;
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop(held(&self.server).take());
    }
}

fn held(server: &Mutex<Option<Server>>) -> MutexGuard<'_, Option<Server>> {
    server.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn keep(server: Weak<Mutex<Option<Server>>>, folder: Weak<Folder>, binaries: Binaries, port: u16) {
    let (mut pause, mut started) = (LOOK_EVERY, Instant::now());
    loop {
        tokio::time::sleep(pause).await;
        let (Some(server), Some(folder)) = (server.upgrade(), folder.upgrade()) else {
            return;
        };
        let mut server = held(&server);
        let Some(ended) = server.as_mut().map(Server::exited) else {
            return;
        };
        let Some(status) = ended else {
            continue;
        };
        pause = if started.elapsed() < RAN_WELL { (pause * 2).min(PAUSE_MAX) } else { LOOK_EVERY };
        tracing::error!(%status, said = folder.log_tail(), "PostgreSQL has ended, and is started again");
        match folder.log().and_then(|log| Server::start(&folder, &binaries, port, log)) {
            Ok(again) => (*server, started) = (Some(again), Instant::now()),
            Err(error) => tracing::error!(%error, "PostgreSQL cannot be started again now"),
        }
    }
}
