//! Connections: how many there are, how long they may take to ask, and whose certificate each was proven to have.

use std::{future::Future, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use axum::{Extension, Router, http::Extensions, middleware::AddExtension};
use axum_server::{Handle, Server, accept::Accept};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{either::Either, sync::CancellationToken};
use tower::Layer as _;

use super::callers::PeerCertificate;

/// Connections at a time, unless said; who comes then is sent away.
pub const CONNECTIONS_DEFAULT: usize = 1024;
/// How long a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long a connection may be open before, or between, what it asks.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How often who speaks HTTP/2 is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(30);
/// How long answers may take that are being given at the shutdown.
const SHUTDOWN_MAX: Duration = Duration::from_secs(10);

/// What every request of a connection has as an extension.
#[derive(Clone)]
struct Connection {
    certificate: Option<Arc<PeerCertificate>>,
    /// Held as long as a connection, or what it asked.
    _permit: Arc<OwnedSemaphorePermit>,
}

/// The certificate that the client of a request was proven to have, if any.
pub fn certificate(extensions: &Extensions) -> Option<&PeerCertificate> {
    extensions.get::<Connection>()?.certificate.as_deref()
}

/// Answers, over TLS where it is given, until the shutdown, and then what was asked before.
pub async fn serve(
    listener: TcpListener,
    routes: Router,
    tls: Option<Arc<ServerConfig>>,
    connections_max: usize,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let handle = Handle::new();
    let acceptor =
        Acceptor { tls: tls.map(TlsAcceptor::from), permits: Arc::new(Semaphore::new(connections_max)) };
    let mut server = Server::<SocketAddr>::from_listener(listener)
        .acceptor(acceptor)
        .handle(handle.clone())
        .first_request_timeout(IDLE_MAX)
        .accept_error_handler(|from, error| tracing::debug!(?from, %error, "a connection was not accepted"));
    let http = server.http_builder();
    http.http1().header_read_timeout(IDLE_MAX);
    http.http2().keep_alive_interval(PING_EVERY);
    let ending = async {
        shutdown.cancelled().await;
        handle.graceful_shutdown(Some(SHUTDOWN_MAX));
        std::future::pending().await
    };
    tokio::select! {
        served = server.serve(routes.into_make_service()) => served,
        () = ending => Ok(()),
    }
}

/// Makes a connection of a socket.
#[derive(Clone)]
struct Acceptor {
    tls: Option<TlsAcceptor>,
    permits: Arc<Semaphore>,
}

type Accepted<S> = io::Result<(Either<TlsStream<TcpStream>, TcpStream>, AddExtension<S, Connection>)>;

impl<S: Send + 'static> Accept<TcpStream, S> for Acceptor {
    type Stream = Either<TlsStream<TcpStream>, TcpStream>;
    type Service = AddExtension<S, Connection>;
    type Future = Pin<Box<dyn Future<Output = Accepted<S>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        let tls = self.tls.clone();
        Box::pin(async move {
            let permit = permit.map_err(|_| io::Error::other("there are too many connections"))?;
            stream.set_nodelay(true)?;
            let (stream, certificate) = match tls {
                None => (Either::Right(stream), None),
                Some(tls) => {
                    let stream = tokio::time::timeout(HANDSHAKE_MAX, tls.accept(stream)).await??;
                    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                    let certificate =
                        shown.map(|der| PeerCertificate::read(der)).transpose().map_err(io::Error::other)?;
                    (Either::Left(stream), certificate.map(Arc::new))
                }
            };
            let connection = Connection { certificate, _permit: Arc::new(permit) };
            Ok((stream, Extension(connection).layer(service)))
        })
    }
}
