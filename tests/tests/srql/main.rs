//! SRQL on a real TimescaleDB, as `serviceradar_reader`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod arrow;
mod buckets;
mod callers;
mod catalogue;
mod claims;
mod free_terms;
mod given;
mod grpc;
mod live;
mod measured;
mod mistakes;
mod nested;
mod openapi;
mod pages;
mod rates;
mod reference;
mod search;
mod service;
mod values;

use serde_json::Value;
use serviceradar_materializers::views::{Epoch, Pieces, Views};
use serviceradar_srql::{
    error::QueryError,
    plan::{Extent, plan},
    reader::{Answer, Reader},
};
use serviceradar_streams::rows::EpochOutput;
use serviceradar_tests::{database::Database, views_conformance};

/// A query's answer, or all that is wrong with it.
async fn ask(reader: &mut Reader, tenant: &str, query: &str, now: i64) -> Result<Answer, Vec<QueryError>> {
    let plan = plan(query, now, Extent::first())?;
    reader.answer(tenant, &plan).await.map_err(|error| vec![error])
}

/// Fills a tenant's empty views with rows.
async fn fill(views: &dyn Views, tenant: &str, output: EpochOutput) {
    let (mut writer, _) = views.take(tenant, "w", "f1", &Value::Null).await.unwrap();
    let (put, pieces) = Pieces::new(2);
    put.send(Some(output)).await.unwrap();
    put.send(None).await.unwrap();
    let empty = Epoch { output: EpochOutput::default(), ..views_conformance::first_epoch() };
    writer.load(&empty, pieces).await.unwrap();
    writer.leave().await.unwrap();
}

async fn reader(database: &Database) -> Reader {
    Reader::connect(database.url(), None).await.unwrap()
}
