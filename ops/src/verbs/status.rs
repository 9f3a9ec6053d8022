//! `status`: how far the views are behind the log.

use anyhow::Context as _;
use clap::Args;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::Context;
use crate::{
    exit::{NotRunning, Wanting},
    http,
    output::{self, Format},
};

/// A status of some thousand log partitions.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Shows how far the views are behind the log
#[derive(Debug, Args)]
pub(crate) struct Status {}

impl Status {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let dir = &context.config.dir;
        let status = ask(context).await.map_err(|why| NotRunning { dir: dir.clone(), why })?;
        let (figures, partitions) = split(&status);
        match context.format {
            Format::Json => output::line(&status.to_string())?,
            Format::Table => {
                output::rows(context.format, &["what", "value"], &figures)?;
                output::line("")?;
                let columns = ["log partition", "next offset", "end", "lag", "stalled"];
                output::rows(context.format, &columns, &partitions)?;
            }
        }
        let stalled = partitions.iter().filter(|row| !row[4].is_null()).count();
        match (&status["phase"], stalled) {
            (Value::Object(failed), _) => {
                Err(Wanting(format!("the pipeline has stopped: {failed:?}")).into())
            }
            (_, 0) => Ok(()),
            _ => Err(Wanting(format!("{stalled} log partitions are not being read")).into()),
        }
    }
}

/// What the process that runs on the data folder says.
async fn ask(context: &Context) -> anyhow::Result<Value> {
    let address = tokio::fs::read_to_string(context.config.dir.join(http::ADDRESS_FILE)).await?;
    let mut connection = TcpStream::connect(&*address).await?;
    // In HTTP/1.0 the answer is all that comes until the end.
    connection.write_all(b"GET /status HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    connection.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
    let (_, body) = answer.split_once("\r\n\r\n").context("what answers there is no pipeline")?;
    serde_json::from_str(body).context("what answers there is no pipeline")
}

/// The figures, and the log partitions.
fn split(status: &Value) -> (Vec<Vec<Value>>, Vec<Vec<Value>>) {
    let (mut figures, mut partitions) = (Vec::new(), Vec::new());
    for (name, value) in status.as_object().into_iter().flatten() {
        match value {
            Value::Object(of) if name == "partitions" => {
                for (partition, found) in of {
                    let offset = |name: &str| found[name].as_u64().unwrap_or_default();
                    let lag = offset("end").saturating_sub(offset("next_offset"));
                    partitions.push(vec![
                        partition.as_str().into(),
                        found["next_offset"].clone(),
                        found["end"].clone(),
                        lag.into(),
                        found["stalled"].clone(),
                    ]);
                }
            }
            Value::Array(of) => figures.push(vec![name.as_str().into(), of.len().into()]),
            value => figures.push(vec![name.as_str().into(), value.clone()]),
        }
    }
    (figures, partitions)
}
