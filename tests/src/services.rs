//! The servers of `ops/dev/services`, started where they do not run.

use std::path::Path;

use tokio::{process::Command, sync::OnceCell};

static KAFKA: OnceCell<String> = OnceCell::const_new();
static POSTGRES: OnceCell<String> = OnceCell::const_new();
static REGISTRY: OnceCell<String> = OnceCell::const_new();

/// Where Kafka answers: `host:port`.
pub async fn kafka() -> String {
    KAFKA.get_or_init(|| up("kafka")).await.clone()
}

/// Where PostgreSQL with TimescaleDB answers: the URL of its superuser.
pub async fn postgres() -> String {
    POSTGRES.get_or_init(|| up("postgres")).await.clone()
}

/// Where the schema registry answers: its URL.
pub async fn registry() -> String {
    REGISTRY.get_or_init(|| up("registry")).await.clone()
}

/// Stops a server in an orderly way, and starts it again.
pub async fn restart(name: &str) {
    services("down", name).await;
    up(name).await;
}

/// Kills a server, as a lost machine would, and starts it again.
pub async fn kill(name: &str) {
    services("kill", name).await;
    up(name).await;
}

/// Stops a server in an orderly way.
pub async fn down(name: &str) {
    services("down", name).await;
}

/// Starts a server where it does not run. Returns its address.
pub async fn up(name: &str) -> String {
    let said = services("up", name).await;
    let address = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    address.unwrap_or_else(|| panic!("`ops/dev/services up {name}` names no address: {said:?}")).to_owned()
}

async fn services(verb: &str, name: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/dev/services");
    let run = Command::new(script).args([verb, name]).output().await.unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "`ops/dev/services {verb} {name}` failed: {said}");
    String::from_utf8(run.stdout).unwrap()
}
