//! The side that holds the store.

use std::{
    fs::{self, DirBuilder, Permissions},
    future::Future,
    io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serviceradar_proto::log::v1::{self as message, log_store_server};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::watch,
};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use super::{MESSAGE_BYTES_MAX, wire};
use crate::store::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, Batch, BatchId, LogError, LogStore, ReadLimit};

/// Window of a stream and of a connection, bytes, as on the other side.
const WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// Calls of one connection under way at a time: readers that wait for each log partition, and to
/// spare.
const CALLS_MAX: u32 = 1_024;

/// Why a store could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another process listens there.
    #[error("{} is served by another process: stop that one, or use it", .0.display())]
    InUse(PathBuf),
    /// The socket could not be made.
    #[error("cannot listen at {}: {error}; the folder must exist, be writable, and the path be shorter than 100 bytes", .path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The server stopped by itself.
    #[error("the server of the log stopped: {0}")]
    Stopped(#[from] tonic::transport::Error),
}

/// Serves `store` at `path` until `shutdown`, then answers what is under way and removes the socket.
///
/// Only the user of this process can connect. The socket of a process that died is replaced.
pub async fn serve(
    store: Arc<dyn LogStore>,
    path: &Path,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    if UnixStream::connect(path).await.is_ok() {
        return Err(ServeError::InUse(path.to_owned()));
    }
    let listener = listen(path).map_err(|error| ServeError::Listen { path: path.to_owned(), error })?;
    let (stop, stopping) = watch::channel(false);
    let service = log_store_server::LogStoreServer::new(Service { store, stopping })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let served = Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_concurrent_streams(CALLS_MAX)
        .add_service(service)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), async {
            shutdown.await;
            stop.send_replace(true);
        })
        .await;
    // Where it is gone already, it need not go.
    let _ = fs::remove_file(path);
    Ok(served?)
}

/// Binds in a folder of our own and moves the socket into place: so nobody else can connect in the
/// moment before its mode is set, and what a dead process left is replaced at once.
fn listen(path: &Path) -> io::Result<UnixListener> {
    if fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "what is there is not a socket"));
    }
    let folder = path.with_extension(std::process::id().to_string());
    let inside = folder.join("s");
    // A process that had this one's number may have died here.
    let _ = fs::remove_file(&inside).and_then(|()| fs::remove_dir(&folder));
    DirBuilder::new().mode(0o700).create(&folder)?;
    let bound = UnixListener::bind(&inside).and_then(|listener| {
        fs::set_permissions(&inside, Permissions::from_mode(0o600))?;
        fs::rename(&inside, path)?;
        Ok(listener)
    });
    fs::remove_dir_all(&folder)?;
    bound
}

struct Service {
    store: Arc<dyn LogStore>,
    stopping: watch::Receiver<bool>,
}

type Answer<T> = Result<Response<T>, Status>;

fn answer<T, M>(result: Result<T, LogError>, message: impl FnOnce(T) -> M) -> Answer<M> {
    result.map(|it| Response::new(message(it))).map_err(wire::status)
}

#[tonic::async_trait]
impl log_store_server::LogStore for Service {
    async fn create_topic(&self, request: Request<message::Topic>) -> Answer<message::CreateTopicResponse> {
        let it = request.into_inner();
        let created = self.store.create_topic(&it.name, it.log_partitions).await;
        answer(created, |()| message::CreateTopicResponse {})
    }

    async fn describe_topic(
        &self,
        request: Request<message::DescribeTopicRequest>,
    ) -> Answer<message::Topic> {
        let it = request.into_inner();
        answer(self.store.describe_topic(&it.topic).await, message::Topic::from)
    }

    async fn delete_topic(
        &self,
        request: Request<message::DeleteTopicRequest>,
    ) -> Answer<message::DeleteTopicResponse> {
        let it = request.into_inner();
        let deleted = self.store.delete_topic(&it.topic).await;
        answer(deleted, |()| message::DeleteTopicResponse {})
    }

    async fn topics(&self, request: Request<message::TopicsRequest>) -> Answer<message::TopicsResponse> {
        let it = request.into_inner();
        let found = self.store.topics(it.tenant.as_deref()).await;
        answer(found, |topics| message::TopicsResponse {
            topics: topics.into_iter().map(message::Topic::from).collect(),
        })
    }

    async fn append(&self, request: Request<message::AppendRequest>) -> Answer<message::AppendResponse> {
        let it = request.into_inner();
        let batch = Batch {
            id: BatchId { producer: it.producer, sequence: it.sequence },
            events: it.events.into_iter().map(Into::into).collect(),
        };
        let appended = self.store.append(&it.topic, it.log_partition, batch).await;
        answer(appended, |appended| message::AppendResponse {
            first_offset: appended.first_offset,
            append_time: appended.append_time,
        })
    }

    async fn read(&self, request: Request<message::ReadRequest>) -> Answer<message::ReadResponse> {
        let it = request.into_inner();
        // The limits of a batch are those of a message, whatever was asked for.
        let limit = ReadLimit {
            events: usize::try_from(it.events).unwrap_or(usize::MAX).min(BATCH_EVENTS_MAX),
            bytes: usize::try_from(it.bytes).unwrap_or(usize::MAX).min(BATCH_BYTES_MAX),
            wait: Duration::from_millis(it.wait_ms),
        };
        let mut stopping = self.stopping.clone();
        let read = tokio::select! {
            read = self.store.read(&it.topic, it.log_partition, it.offset, limit) => read,
            // A reader that waits must not hold up the end.
            _ = stopping.wait_for(|stopping| *stopping) => {
                Err(LogError::Unavailable("its holder is stopping".to_owned()))
            }
        };
        answer(read, |read| message::ReadResponse {
            events: read.events.into_iter().map(message::Event::from).collect(),
            next_offset: read.next_offset,
        })
    }

    async fn offsets(&self, request: Request<message::OffsetsRequest>) -> Answer<message::OffsetsResponse> {
        let it = request.into_inner();
        let offsets = self.store.offsets(&it.topic, it.log_partition).await;
        answer(offsets, |offsets| message::OffsetsResponse { start: offsets.start, end: offsets.end })
    }

    async fn delete_before(
        &self,
        request: Request<message::DeleteBeforeRequest>,
    ) -> Answer<message::DeleteBeforeResponse> {
        let it = request.into_inner();
        let deleted = self.store.delete_before(&it.topic, it.log_partition, it.offset).await;
        answer(deleted, |()| message::DeleteBeforeResponse {})
    }
}
