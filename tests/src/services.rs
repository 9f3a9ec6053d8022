//! The servers of `ops/dev/services`, started where they do not run.

use std::path::Path;

use tokio::{process::Command, sync::OnceCell};

static UP: OnceCell<String> = OnceCell::const_new();

/// Where Kafka answers: `host:port`.
pub async fn kafka() -> String {
    let up = UP.get_or_init(|| services("up")).await;
    let address = up.lines().find_map(|line| line.strip_prefix("kafka "));
    address.unwrap_or_else(|| panic!("`ops/dev/services up` names no Kafka: {up:?}")).to_owned()
}

/// Stops all servers in an orderly way, and starts them again.
pub async fn restart() {
    services("down").await;
    services("up").await;
}

/// Kills all servers, as a lost machine would, and starts them again.
pub async fn kill() {
    services("kill").await;
    services("up").await;
}

async fn services(verb: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/dev/services");
    let run = Command::new(script).arg(verb).output().await.unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "`ops/dev/services {verb}` failed: {said}");
    String::from_utf8(run.stdout).unwrap()
}
