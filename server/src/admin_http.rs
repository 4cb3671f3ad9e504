//! HTTP for operators: `/healthz` and `/metrics`, on a thread of its own.
//!
//! Connections come through ports for HTTP alone, or from a core that sees the first line of a connection on another
//! port be HTTP: such a connection moves here with what was read of it, for the rest of its life.
//!
//! A thread, because neither a scrape nor a slow peer may take time from a core. It shares nothing with the cores but
//! their mailboxes: for the metrics it posts each a question and waits for the answers.
//!
//! The ports are open to whoever reaches them, so everything is bounded. A header must come within [`READ_TIMEOUT`]
//! and [`HEADER_LEN_MAX`]; bodies are not read. At [`CONNECTIONS_MAX`] the oldest connection makes room for a new
//! one: with a refusal instead, 64 silent peers could make every probe fail, and the orchestrator would restart a
//! healthy server. A core that does not answer fails the scrape after [`ANSWER_TIMEOUT`] and is not asked again
//! until it has.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::connection::{ConnectionId, Listener, Stream};
use crate::core::Core;
use crate::listen::{Listening, TcpOptions};
use crate::metrics;
use crate::report::CoreReport;
use crate::shared::Shared;

/// Connections at a time.
const CONNECTIONS_MAX: usize = 64;
/// Connections the kernel may queue.
const BACKLOG: u32 = 64;
/// For a request's header to arrive, and for the next request on an idle connection: longer than the minute between
/// two scrapes.
const READ_TIMEOUT: Duration = Duration::from_secs(75);
/// For sent bytes to be taken by the peer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// For all cores to answer. Ten times what a scraper waits would help nobody.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after the kernel could not give us a connection, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes and number of header fields.
const HEADER_LEN_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 64;
/// Connections on their way from a core.
const HANDED_MAX: usize = 64;
/// The thread's stack. Pages that are not touched cost nothing, but some systems reserve them all.
const STACK_LEN: usize = 512 * 1024;

/// A connection that turned out to be HTTP, and what was read of it.
pub struct Handed {
    stream: TcpStream,
    read: Vec<u8>,
}

/// Where cores hand such connections in.
pub type HttpDoor = mpsc::Sender<Handed>;

/// Listens on the configured ports and starts the thread. A port that is taken is a warning: the server serves its
/// clients without it.
pub fn start(shared: &Arc<Shared>) {
    let config = &shared.config;
    let options = TcpOptions { backlog: BACKLOG, user_timeout_ms: 0 };
    let mut sockets = Vec::new();
    for &port in &config.http_ports {
        match Listening::tcp(&config.bind, port, Listener::Admin, options) {
            Ok(opened) => {
                tracing::info!("listening on port {port} (HTTP)");
                sockets.extend(opened.into_iter().filter_map(Listening::into_tcp));
            }
            Err(error) => tracing::warn!("no HTTP on port {port}: {error}"),
        }
    }
    if sockets.is_empty() && !config.http_on_port && config.admin_ports.is_empty() {
        return;
    }
    let (door, handed) = mpsc::channel(HANDED_MAX);
    assert!(shared.http.set(door).is_ok(), "HTTP starts once");
    let shared = shared.clone();
    let thread = std::thread::Builder::new().name("admin-http".to_string()).stack_size(STACK_LEN);
    let started = thread.spawn(move || {
        if let Err(error) = run(shared, sockets, handed) {
            tracing::error!("HTTP ended: {error}");
        }
    });
    if let Err(error) = started {
        tracing::warn!("no HTTP: cannot start a thread: {error}");
    }
}

fn run(
    shared: Arc<Shared>,
    sockets: Vec<TcpListener>,
    mut handed: mpsc::Receiver<Handed>,
) -> std::io::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    let pages = Rc::new(Pages { shared, unanswered: Mutex::new(Vec::new()) });
    let open = Open::default();
    runtime.block_on(async {
        for socket in sockets {
            let socket = tokio::net::TcpListener::from_std(socket)?;
            tokio::task::spawn_local(accept(socket, pages.clone(), open.clone()));
        }
        while let Some(Handed { stream, read }) = handed.recv().await {
            match tokio::net::TcpStream::from_std(stream) {
                Ok(stream) => serve(stream, read, &pages, &open),
                Err(error) => tracing::warn!(%error, "an HTTP connection could not be taken over"),
            }
        }
        Ok(())
    })
}

/// The connections there are, oldest first.
type Open = Rc<RefCell<VecDeque<AbortHandle>>>;

async fn accept(socket: tokio::net::TcpListener, pages: Rc<Pages>, open: Open) {
    loop {
        let stream = match socket.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "an HTTP connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        serve(stream, Vec::new(), &pages, &open);
    }
}

/// Serves one connection, of which some bytes may have been read, until its end.
fn serve(stream: tokio::net::TcpStream, read: Vec<u8>, pages: &Rc<Pages>, open: &Open) {
    // Without it a peer that stops reading keeps its connection until 64 others came. Where the option is missing, it
    // does.
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(WRITE_TIMEOUT));
    let (from, to) = stream.into_split();
    let io = tokio::io::join(std::io::Cursor::new(read).chain(from), to);
    let connection = tokio::task::spawn_local(answer_all(io, pages.clone()));
    let mut open = open.borrow_mut();
    open.retain(|connection| !connection.is_finished());
    if open.len() == CONNECTIONS_MAX
        && let Some(oldest) = open.pop_front()
    {
        oldest.abort();
    }
    open.push_back(connection.abort_handle());
}

async fn answer_all(io: impl AsyncRead + AsyncWrite + Unpin, pages: Rc<Pages>) {
    let service = service_fn(move |request| {
        let pages = pages.clone();
        async move { Ok::<_, Infallible>(pages.answer(&request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEADER_LEN_MAX)
        .max_buf_size(2 * HEADER_LEN_MAX)
        .serve_connection(TokioIo::new(io), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "an HTTP connection ended");
    }
}

/// Whether the first line of a connection is HTTP; None as long as it may become so.
fn begins_as_http(bytes: &[u8]) -> Option<bool> {
    /// Longer than any line that asks for one of our pages.
    const LINE_LEN_MAX: usize = 1024;
    let methods: [&[u8]; 2] = [b"GET ", b"POST "];
    let begins = |method: &[u8]| bytes.starts_with(method) || method.starts_with(bytes);
    if !methods.into_iter().any(begins) {
        return Some(false);
    }
    match bytes.iter().take(LINE_LEN_MAX).position(|byte| *byte == b'\n') {
        Some(end) => Some(bytes[..end].ends_with(b" HTTP/1.1\r")),
        None if bytes.len() >= LINE_LEN_MAX => Some(false),
        None => None,
    }
}

impl Core {
    /// Looks at the first bytes of a connection; true if they are HTTP and the connection is gone to the HTTP thread.
    #[cold]
    pub(crate) fn is_http(&mut self, id: ConnectionId, bytes: &[u8]) -> bool {
        let Some(is_http) = begins_as_http(bytes) else { return false };
        let Some(connection) = self.connection(id) else { return false };
        connection.fresh = false;
        let answered = match connection.client.listener {
            Listener::Main => self.shared.config.http_on_port,
            Listener::Admin => true,
            Listener::Unix => false,
        };
        if !is_http || !answered {
            return false;
        }
        let Some(door) = self.shared.http.get().cloned() else { return false };
        if let Some(Stream::Tcp(stream)) = self.give_away(id)
            && door.try_send(Handed { stream, read: bytes.to_vec() }).is_err()
        {
            tracing::warn!("an HTTP connection was closed: too many wait");
        }
        true
    }
}

/// What there is to see.
struct Pages {
    shared: Arc<Shared>,
    /// Questions that were not answered in time.
    unanswered: Mutex<Vec<oneshot::Receiver<CoreReport>>>,
}

impl Pages {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if !matches!(path, "/healthz" | "/metrics") {
            return text(StatusCode::NOT_FOUND, "Not Found\n");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        if self.shared.stopping.load(Ordering::Acquire) {
            return unavailable();
        }
        if path == "/healthz" {
            if self.shared.snapshots.is_loading() {
                return unavailable();
            }
            return text(StatusCode::OK, "OK\n");
        }
        let Some(report) = self.report().await else { return unavailable() };
        let mut response = text(StatusCode::OK, metrics::text(&self.shared, &report));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
        response
    }

    /// Asks all cores; None if one does not answer.
    async fn report(&self) -> Option<CoreReport> {
        // One scrape at a time: each core holds at most one question of ours, however many ask and however long it
        // takes.
        let mut unanswered = self.unanswered.lock().await;
        let collect = async {
            while let Some(late) = unanswered.last_mut() {
                // An answer that comes too late is of no use, but it makes room for the next question.
                let _ = late.await;
                unanswered.pop();
            }
            for peer in &self.shared.peers {
                let (answer, answered) = oneshot::channel();
                peer.mailbox.post_from_outside(Box::new(move |core| {
                    // Nobody waits any more if the scrape took too long.
                    let _ = answer.send(CoreReport::of(core));
                }));
                unanswered.push(answered);
            }
            let mut reports = Vec::new();
            while let Some(answered) = unanswered.last_mut() {
                let report = answered.await;
                unanswered.pop();
                reports.push(report.ok()?);
            }
            Some(CoreReport::sum(reports))
        };
        tokio::time::timeout(ANSWER_TIMEOUT, collect).await.ok()?
    }
}

fn unavailable() -> Response<Full<Bytes>> {
    text(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable\n")
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
