//! A TCP proxy between one worker and PostgreSQL: it counts the worker's messages, and breaks the
//! connection as told.
//!
//! It recognizes only BEGIN, COMMIT and ROLLBACK. At a chosen message it holds everything back
//! until the test decides: pass the message on, drop it, or pass it on and drop the answer, so that
//! a commit that happened looks like one that failed. The server is behind a socket in a directory,
//! so a restarted one is found again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use url::Url;

use super::plan::Moment;
use crate::database::as_least_privileged;
use crate::world::World;

/// A COMMIT as a client sends it: a simple query with its length.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";
/// Other messages that begin or end a transaction.
const BEGIN: &[u8] = b"Q\0\0\0\x0aBEGIN\0";
const ROLLBACK: &[u8] = b"Q\0\0\0\x0dROLLBACK\0";
/// The server's confirmation of a commit. For ROLLBACK it has another tag.
const COMMITTED: &[u8] = b"C\0\0\0\x0bCOMMIT\0";
/// How long to wait for the server's answer when the client must not get it.
const PATIENCE: Duration = Duration::from_secs(20);

/// What to do with a message that is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Passes everything on unchanged.
    Forward,
    /// Never reaches the server; the connection breaks.
    Drop,
    /// Reaches the server; its answer does not come back, and the connection breaks.
    Mute,
}

/// A message that is held.
#[derive(Debug)]
pub struct Held {
    /// Whether it is a COMMIT.
    pub is_commit: bool,
    then: oneshot::Sender<Then>,
    answered: oneshot::Receiver<bool>,
}

impl Held {
    pub fn go_on(self, then: Then) {
        // The connection may be gone by now. Then there is nothing to pass on.
        let _gone = self.then.send(then);
    }

    /// Passes the message on and drops the answer. True: the message was carried out; for a COMMIT,
    /// that it committed.
    pub async fn mute(self) -> bool {
        let _gone = self.then.send(Then::Mute);
        self.answered.await.unwrap_or(false)
    }
}

#[derive(Debug)]
struct Trap {
    moment: Moment,
    sender: oneshot::Sender<Held>,
}

#[derive(Debug, Default)]
struct State {
    messages: AtomicU64,
    commits: AtomicU64,
    /// Connections that are in the middle of a transaction.
    open: AtomicU64,
    /// Microseconds that each message is late.
    late: AtomicU64,
    trap: Mutex<Option<Trap>>,
    cut: Notify,
}

/// The proxy of one worker.
#[derive(Debug)]
pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<State>,
    server: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Proxy {
    /// In front of the server behind `socket`.
    pub async fn start(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let server = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (socket, state) = (socket.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    // No server there: the client sees a connection that closes at once.
                    if let Ok(server) = UnixStream::connect(&socket).await {
                        between(client, server, &state).await;
                    }
                });
            }
        });
        Self { address, state, server }
    }

    /// Begins a new run: counts from 0, and holds back the message at `moment`; none: holds back
    /// nothing.
    pub fn begin(&self, moment: Option<Moment>) -> oneshot::Receiver<Held> {
        let (sender, receiver) = oneshot::channel();
        self.state.messages.store(0, Ordering::SeqCst);
        self.state.commits.store(0, Ordering::SeqCst);
        self.state.late.store(0, Ordering::SeqCst);
        *self.state.trap.lock().unwrap() = moment.map(|moment| Trap { moment, sender });
        receiver
    }

    /// From now on every message of this worker is delayed by this much.
    pub fn slow(&self, by: Duration) {
        self.state.late.store(u64::try_from(by.as_micros()).unwrap_or(0), Ordering::SeqCst);
    }

    /// How many transactions this worker has open.
    pub fn open_transactions(&self) -> u64 {
        self.state.open.load(Ordering::SeqCst)
    }

    /// Breaks every connection of this worker.
    pub fn cut(&self) {
        self.state.cut.notify_waiters();
    }
}

impl State {
    /// Whether this message is the one to be held.
    fn trapped(&self, chunk: &[u8]) -> Option<Trap> {
        let messages = self.messages.fetch_add(1, Ordering::SeqCst) + 1;
        let commit = says(chunk, COMMIT);
        let commits = self.commits.fetch_add(u64::from(commit), Ordering::SeqCst) + u64::from(commit);
        let mut trap = self.trap.lock().unwrap();
        let due = trap.as_ref().is_some_and(|trap| match trap.moment {
            Moment::Message(nth) => messages >= nth,
            Moment::Commit(nth) => commit && commits >= nth,
            Moment::After(_) => false,
        });
        if due { trap.take() } else { None }
    }
}

fn says(chunk: &[u8], words: &[u8]) -> bool {
    chunk.windows(words.len()).any(|window| window == words)
}

/// Counts a connection among those with an open transaction, for as long as it has one.
struct Open<'a> {
    state: &'a State,
    is: bool,
}

impl Open<'_> {
    fn sent(&mut self, chunk: &[u8]) {
        if says(chunk, BEGIN) {
            self.becomes(true);
        } else if says(chunk, COMMIT) || says(chunk, ROLLBACK) {
            self.becomes(false);
        }
    }

    fn becomes(&mut self, is: bool) {
        if is && !self.is {
            self.state.open.fetch_add(1, Ordering::SeqCst);
        } else if !is && self.is {
            self.state.open.fetch_sub(1, Ordering::SeqCst);
        }
        self.is = is;
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.becomes(false);
    }
}

/// The proxy before the world's database, and the address through it; none: it has no socket here.
pub async fn before(world: &World) -> Option<(Proxy, String)> {
    let mut url = Url::parse(&as_least_privileged(&world.database).await).unwrap();
    let folder = url.query_pairs().find(|(name, _)| name == "host")?.1.into_owned();
    let proxy = Proxy::start(PathBuf::from(folder).join(".s.PGSQL.5432")).await;
    url.set_query(Some("sslmode=disable"));
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(proxy.address.port())).unwrap();
    Some((proxy, url.into()))
}

async fn between(client: TcpStream, server: UnixStream, state: &Arc<State>) {
    let _sent_at_once = client.set_nodelay(true);
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let muted = AtomicBool::new(false);
    let committed = AtomicBool::new(false);
    let heard = Notify::new();
    let up = async {
        let mut buffer = vec![0; 64 * 1024];
        let mut open = Open { state, is: false };
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            let chunk = &buffer[..count];
            let late = state.late.load(Ordering::SeqCst);
            if late > 0 {
                tokio::time::sleep(Duration::from_micros(late)).await;
            }
            if let Some(trap) = state.trapped(chunk) {
                let (then, what) = oneshot::channel();
                let (tell, answered) = oneshot::channel();
                let is_commit = says(chunk, COMMIT);
                if trap.sender.send(Held { is_commit, then, answered }).is_ok() {
                    match what.await.unwrap_or(Then::Forward) {
                        Then::Forward => {}
                        Then::Drop => return,
                        Then::Mute => {
                            muted.store(true, Ordering::SeqCst);
                            let sent = to_server.write_all(chunk).await.is_ok();
                            let answer = tokio::time::timeout(PATIENCE, heard.notified()).await;
                            let done = answer.is_ok() && (!is_commit || committed.load(Ordering::SeqCst));
                            let _gone = tell.send(sent && done);
                            return;
                        }
                    }
                }
            }
            if to_server.write_all(chunk).await.is_err() {
                return;
            }
            open.sent(chunk);
        }
    };
    let down = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            if muted.load(Ordering::SeqCst) {
                // One statement at a time: the first tag is the answer to it.
                committed.fetch_or(says(&buffer[..count], COMMITTED), Ordering::SeqCst);
                heard.notify_one();
                continue;
            }
            if to_client.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    // Whichever side ends, both are closed.
    tokio::select! {
        () = up => {}
        () = down => {}
        () = state.cut.notified() => {}
    }
}
