//! `doctor`: what would keep this machine from running the program, and what to do about it.

use std::{net::SocketAddr, path::Path};

use clap::Args;
use serviceradar_ops::{
    config::Config,
    folders,
    postgres::{Binaries, MAJOR_MIN},
};
use tokio::net::TcpListener;

use super::Context;
use crate::{exit::Wanting, output, registry};

/// A demo of 50,000 devices takes about 1 GB: log, views, and PostgreSQL's own log of changes.
const FREE_BYTES_MIN: u64 = 4 << 30;
/// A pipeline of 500,000 devices, and its PostgreSQL.
const MEMORY_BYTES_MIN: u64 = 2 << 30;
/// Log files, connections and sockets of one process, with room.
const OPEN_FILES_MIN: u64 = 1_024;

/// Looks for what would keep this machine from running the program
#[derive(Debug, Args)]
pub(crate) struct Doctor {}

/// What a look found: in words, and whether it is as it should be.
enum Found {
    Fine(String),
    Poor(String),
    Wrong(String),
}

impl Doctor {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let config = &context.config;
        let looks = [
            ("data folder", folder(&config.dir)),
            ("disk", disk(&config.dir)),
            ("memory", memory()),
            ("open files", open_files()),
            ("PostgreSQL", postgres(config).await),
            ("address", address(config.listen).await),
            ("schema registry", schema_registry(config).await),
            ("Armis", armis(config)),
        ];
        let wrong = looks.iter().filter(|(_, found)| matches!(found, Found::Wrong(_))).count();
        let rows = looks.map(|(what, found)| {
            let (state, text) = match found {
                Found::Fine(text) => ("fine", text),
                Found::Poor(text) => ("poor", text),
                Found::Wrong(text) => ("wrong", text),
            };
            vec![what.into(), state.into(), text.into()]
        });
        output::rows(context.format, &["what", "state", "detail"], &rows)?;
        if wrong > 0 {
            return Err(Wanting(format!("{wrong} of the above must be put right")).into());
        }
        Ok(())
    }
}

/// The nearest folder on the way up that exists.
fn existing(dir: &Path) -> &Path {
    dir.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"))
}

fn folder(dir: &Path) -> Found {
    let there = existing(dir);
    match nix::unistd::access(there, nix::unistd::AccessFlags::W_OK) {
        Ok(()) => Found::Fine(dir.display().to_string()),
        Err(error) => Found::Wrong(format!("{}: {error}; give another --dir", there.display())),
    }
}

fn disk(dir: &Path) -> Found {
    match nix::sys::statvfs::statvfs(existing(dir)) {
        Ok(found) => enough(
            found.blocks_available().saturating_mul(found.fragment_size()),
            FREE_BYTES_MIN,
            "free; give a --dir on a larger disk",
        ),
        Err(error) => Found::Poor(format!("cannot be asked: {error}")),
    }
}

fn memory() -> Found {
    let total = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    match total {
        Some(kibibytes) => enough(kibibytes << 10, MEMORY_BYTES_MIN, "in all; ask for fewer --devices"),
        None => Found::Poor("cannot be asked on this system".to_owned()),
    }
}

fn enough(bytes: u64, least: u64, what: &str) -> Found {
    let (found, hint) = what.split_once("; ").unwrap_or((what, ""));
    let text = format!("{:.1} GiB {found}", bytes as f64 / f64::from(1 << 30));
    if bytes >= least { Found::Fine(text) } else { Found::Poor(format!("{text}: {hint}")) }
}

fn open_files() -> Found {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    match line.and_then(|line| line.split_whitespace().next()).map(str::parse::<u64>) {
        Some(Ok(most)) if most < OPEN_FILES_MIN => {
            Found::Poor(format!("at most {most}: `ulimit -n {OPEN_FILES_MIN}`"))
        }
        Some(Ok(most)) => Found::Fine(format!("at most {most}")),
        // The word there may be `unlimited`, and other systems say nothing here.
        _ => Found::Fine("no limit is known".to_owned()),
    }
}

async fn postgres(config: &Config) -> Found {
    if let Some(url) = &config.database_url {
        return match version(url.reveal()).await {
            Ok(version) if version / 10_000 >= MAJOR_MIN => {
                Found::Fine(format!("the database given answers, version {}", version / 10_000))
            }
            Ok(version) => Found::Wrong(format!(
                "the database given has version {}: {MAJOR_MIN} or later is needed",
                version / 10_000
            )),
            Err(error) => Found::Wrong(format!("the database given does not answer: {error:#}")),
        };
    }
    match Binaries::find(None) {
        Some(found) => Found::Fine(format!("version {} in {}", found.major, found.bin.display())),
        None => match folders::cache() {
            Some(cache) => Found::Fine(format!(
                "none on this machine: the one in {} is used, fetched when it is not there",
                cache.display()
            )),
            None => Found::Wrong("none on this machine, and no HOME to keep one in".to_owned()),
        },
    }
}

async fn version(url: &str) -> anyhow::Result<u32> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    let row = client.query_one("SELECT current_setting('server_version_num')", &[]).await?;
    Ok(row.try_get::<_, &str>(0)?.parse()?)
}

async fn address(listen: SocketAddr) -> Found {
    match TcpListener::bind(listen).await {
        Ok(_) => Found::Fine(format!("{listen} is free for /metrics")),
        Err(error) => {
            Found::Poor(format!("{listen}: {error}; if that is not this program, give another --listen"))
        }
    }
}

async fn schema_registry(config: &Config) -> Found {
    let asked = match registry::client(config) {
        Ok(None) => return Found::Fine("not set up: the schemas of this program are used".to_owned()),
        Ok(Some(registry)) => registry.subjects().await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match asked {
        Ok(subjects) => Found::Fine(format!("it answers, with {subjects} subjects")),
        Err(error) => Found::Wrong(format!("{error}; check schema_registry.url and its login")),
    }
}

fn armis(config: &Config) -> Found {
    match (&config.armis.url, &config.armis.secret) {
        (Some(_), Some(_)) => Found::Fine("address and secret are set".to_owned()),
        (Some(_), None) => {
            Found::Wrong("armis.url is set without a secret: set armis.secret_file".to_owned())
        }
        (None, _) => Found::Fine("not set up".to_owned()),
    }
}
