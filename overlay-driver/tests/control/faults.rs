//! Connections that break, and servers that are no such.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use overlay_core::testing::CopiedProgram;
use overlay_driver::control::{Access, AskError, ControlClient, ControlServer, Limits, RemoteError};
use overlay_node::{Control, ControlError};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;

use crate::kit::{Directory, NOW, Pull, Served, network, overlay, until};

/// What a server does with a connection.
#[derive(Debug, Clone, Copy)]
enum Does {
    /// Refuses it with this line.
    Refuses(&'static str),
    /// Takes a request and closes.
    Dies,
    /// Says goodbye without having taken a request.
    Leaves,
    /// Answers a request with this.
    Says(&'static str),
}

/// A server that does so with one connection after the other; with all that come later, the last.
struct Fake {
    path: PathBuf,
    connections: Arc<AtomicUsize>,
    _directory: Directory,
}

impl Fake {
    fn that(does: impl Into<Vec<Does>>) -> Self {
        let does = does.into();
        let directory = Directory::new();
        let path = directory.join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let does = does[count.fetch_add(1, Ordering::SeqCst).min(does.len() - 1)];
                let (read, mut write) = stream.split();
                let mut lines = BufReader::new(read).lines();
                lines.next_line().await.unwrap().unwrap();
                if let Does::Refuses(line) = does {
                    write.write_all(line.as_bytes()).await.unwrap();
                    continue;
                }
                let welcome = "{\"welcome\":{\"version\":1,\"request\":100000,\"beat_millis\":1000}}\n";
                write.write_all(welcome.as_bytes()).await.unwrap();
                lines.next_line().await.unwrap().unwrap();
                match does {
                    Does::Leaves => write.write_all(b"\"bye\"\n").await.unwrap(),
                    Does::Says(line) => write.write_all(line.as_bytes()).await.unwrap(),
                    Does::Dies | Does::Refuses(_) => {}
                }
            }
        });
        Self { path, connections, _directory: directory }
    }

    fn client(&self) -> ControlClient {
        ControlClient::new(&self.path)
    }

    async fn create(&self) -> ControlError {
        self.client().create_network(network(1), overlay("front"), NOW).await.unwrap_err()
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// The reason in an error of a client.
#[track_caller]
fn reason(error: &ControlError) -> &RemoteError {
    let (ControlError::Unreachable(source) | ControlError::InDoubt(source)) = error else { panic!("{error:?}") };
    source.downcast_ref().unwrap()
}

#[tokio::test]
async fn what_was_sent_before_the_connection_broke_is_in_doubt_and_is_not_sent_again() {
    let fake = Fake::that([Does::Dies]);
    let error = fake.create().await;
    assert!(error.is_in_doubt() && matches!(reason(&error), RemoteError::Lost), "{error:?}");
    assert_eq!(error.to_string(), "it may be done or not: repeat it with the same id");
    assert_eq!(fake.connections(), 1);
}

#[tokio::test]
async fn what_only_reads_is_asked_again() {
    let fake = Fake::that([Does::Dies, Does::Dies, Does::Says("{\"answer\":{\"id\":1,\"outcome\":{\"ok\":[]}}}\n")]);
    assert_eq!(fake.client().networks().await.unwrap(), []);
    assert_eq!(fake.connections(), 3);
    let fake = Fake::that([Does::Dies]);
    let error = fake.client().networks().await.unwrap_err();
    assert!(matches!((&error, reason(&error)), (ControlError::Unreachable(_), RemoteError::Lost)), "{error:?}");
}

#[tokio::test]
async fn what_the_server_has_not_taken_is_sent_again() {
    let fake = Fake::that([Does::Leaves, Does::Says("{\"answer\":{\"id\":1,\"outcome\":{\"ok\":null}}}\n")]);
    let ended = fake.client().detach(crate::kit::endpoint(1), NOW).await;
    assert_eq!(ended.unwrap(), None);
    assert_eq!(fake.connections(), 2);
}

#[tokio::test]
async fn a_server_of_another_release_is_told_apart() {
    let fake = Fake::that([Does::Refuses("{\"refused\":{\"version\":{\"client\":1,\"server\":2}}}\n")]);
    let error = fake.create().await;
    assert!(!error.is_in_doubt());
    let text = "this client speaks version 1 of the protocol, the server version 2: use those of one release";
    assert_eq!(reason(&error).to_string(), text);
    let fake = Fake::that([Does::Refuses("{\"welcome\":{\"version\":3,\"request\":1,\"beat_millis\":1}}\n")]);
    assert!(matches!(reason(&fake.create().await), RemoteError::Version { client: 1, server: 3 }));
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_is_in_doubt() {
    for line in ["{\"answer\":{\"id\":1,\"outcome\":{\"ok\":7}}}\n", "what?\n", "\"beat\"\nwhat?\n"] {
        let fake = Fake::that([Does::Says(line)]);
        let error = fake.create().await;
        assert!(error.is_in_doubt() && matches!(reason(&error), RemoteError::Garbled { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn where_nobody_listens_nothing_was_changed_and_the_path_is_named() {
    let directory = Directory::new();
    let client = ControlClient::new(directory.join("control.sock"));
    let error = client.create_network(network(1), overlay("front"), NOW).await.unwrap_err();
    assert!(!error.is_in_doubt());
    assert_eq!(error.to_string(), "the manager could not be asked");
    assert_eq!(reason(&error).to_string(), format!("nobody answers at {}", client.path().unwrap().display()));
}

#[tokio::test]
async fn a_server_that_dies_at_a_call_leaves_it_in_doubt_and_its_successor_is_found() {
    let mut served = Served::new().await;
    let client = served.client();
    let asking = client.clone();
    let waits = tokio::spawn(async move { asking.ask(&Pull::Wait { changes: true }).await });
    until(|| served.lever.asked.load(Ordering::SeqCst) == 1).await;
    served.again().await;
    let error = waits.await.unwrap().unwrap_err();
    assert!(matches!(error, AskError::InDoubt(RemoteError::Lost)), "{error:?}");
    client.create_network(network(1), overlay("front"), NOW).await.unwrap();
    served.again().await;
    assert_eq!(client.networks().await.unwrap().len(), 1);
}

#[tokio::test]
async fn who_may_not_call_is_told_who_it_is() {
    let served = Served::with(|server| server.with_access(Access::only([u32::MAX - 1]))).await;
    let client = served.client();
    let error = client.create_network(network(1), overlay("front"), NOW).await.unwrap_err();
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    assert!(matches!(reason(&error), RemoteError::Denied { uid: u, gid: g } if (*u, *g) == (uid, gid)), "{error:?}");
    assert!(!error.is_in_doubt());
    assert!(matches!(client.connect().await, Err(RemoteError::Denied { .. })));
    assert_eq!(served.manager().networks().await.unwrap(), []);
}

/// A second process of this test is told the path by this, and calls.
const CALL: &str = "OVERLAY_CONTROL_TEST_CALL";

/// The test calls itself, as another user if it may become one: else it is called by its own, who is let in.
#[test]
#[allow(clippy::disallowed_methods, reason = "the second process is told by the environment that it is that")]
fn the_kernel_says_who_calls() {
    if let Some(path) = std::env::var_os(CALL) {
        let called = runtime().block_on(ControlClient::new(path).connect());
        return println!("called: {called:?}");
    }
    let runtime = runtime();
    let served = runtime.block_on(Served::with(|server| server.with_mode(0o666)));
    let expected = if is_root() { "called: Err(Denied { uid: 65534, gid: " } else { "called: Ok(())" };
    assert_calls(&served, expected);
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Has another user call, if this one is root, who may become one; itself otherwise.
#[allow(clippy::disallowed_methods, reason = "the second process is told by the environment that it is that")]
fn assert_calls(served: &Served, expected: &str) {
    let caller = if is_root() { 65_534 } else { nix::unistd::geteuid().as_raw() };
    let program = CopiedProgram::of(&std::env::current_exe().unwrap()).unwrap(); // where the other user finds it
    let mut command = std::process::Command::new(program.path());
    command.args(["--exact", "faults::the_kernel_says_who_calls", "--nocapture"]).env(CALL, served.path());
    let output = command.current_dir("/").uid(caller).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(expected), "{output:?}");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

#[tokio::test]
async fn a_user_or_a_group_that_is_listed_may_call() {
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let nobody = || Access::only([u32::MAX - 1]);
    for access in [nobody().and_uid(uid), nobody().and_gid(gid), Access::default(), Access::everyone()] {
        let served = Served::with(|server| server.with_access(access)).await;
        served.client().networks().await.unwrap();
    }
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_until_another_ends() {
    let served = Served::bearing(Limits { connections: 2, ..Limits::default() }).await;
    let (one, two, three) = (served.client(), served.client(), served.client());
    one.networks().await.unwrap();
    two.networks().await.unwrap();
    let error = three.networks().await.unwrap_err();
    assert!(matches!(reason(&error), RemoteError::Busy { limit: 2 }), "{error:?}");
    drop(one);
    for _ in 0..2000 {
        if three.networks().await.is_ok() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("a place was free");
}

#[test]
fn a_user_who_has_its_share_of_connections_leaves_some_for_others() {
    let runtime = runtime();
    let limits = Limits { connections: 3, connections_of_user: 2, ..Limits::default() };
    let open = |server: ControlServer| server.with_access(Access::everyone()).with_mode(0o666).with_limits(limits);
    let served = runtime.block_on(Served::with(open));
    let (one, two) = (served.client(), served.client());
    runtime.block_on(async {
        one.networks().await.unwrap();
        two.networks().await.unwrap();
        let error = served.client().networks().await.unwrap_err();
        let me = nix::unistd::geteuid().as_raw();
        assert!(matches!(reason(&error), RemoteError::UserBusy { uid, limit: 2 } if *uid == me), "{error:?}");
    });
    assert_calls(&served, if is_root() { "called: Ok(())" } else { "called: Err(UserBusy { uid: " });
}
