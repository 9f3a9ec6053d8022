//! What is written for Arrow is read back as JSON has it.

use arrow_array::{
    Array, BooleanArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray,
    TimestampMicrosecondArray, cast::AsArray,
};
use arrow_ipc::reader::StreamReader;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use serviceradar_schemas::time;
use serviceradar_srql::{
    catalogue::{Standing, entities},
    plan::{Column, Extent, Shape, plan},
    written::{RowFormat, RowWriter},
};

use super::{
    ask,
    catalogue::{NOW, filled},
    reader,
    service::{DEVICES, Stand},
};

fn as_is<T: Array + 'static>(array: &dyn Array) -> &T {
    array.as_any().downcast_ref().unwrap_or_else(|| panic!("{:?}", array.data_type()))
}

fn texts(array: &StringArray) -> Value {
    array.iter().collect()
}

/// A value of a column, as JSON has it.
fn value(of: Shape, array: &dyn Array, at: usize) -> Value {
    if array.is_null(at) {
        return Value::Null;
    }
    match of {
        Shape::Text => json!(as_is::<StringArray>(array).value(at)),
        Shape::Integer => json!(as_is::<Int64Array>(array).value(at)),
        Shape::Number => json!(as_is::<Float64Array>(array).value(at)),
        Shape::Bool => json!(as_is::<BooleanArray>(array).value(at)),
        Shape::Time => json!(time::format(as_is::<TimestampMicrosecondArray>(array).value(at))),
        Shape::Texts => texts(as_is::<ListArray>(array).value(at).as_string()),
        Shape::Json => serde_json::from_str(as_is::<StringArray>(array).value(at)).unwrap(),
    }
}

fn rows(columns: &[Column], written: &[u8]) -> Vec<Vec<Value>> {
    let stream = StreamReader::try_new(written, None).unwrap();
    let names: Vec<&str> = columns.iter().map(|column| &*column.name).collect();
    assert_eq!(stream.schema().fields().iter().map(|field| field.name()).collect::<Vec<_>>(), names);
    let rows = |batch: RecordBatch| {
        let row =
            |at| columns.iter().zip(batch.columns()).map(|(of, array)| value(of.shape, array, at)).collect();
        (0..batch.num_rows()).map(row).collect::<Vec<Vec<Value>>>()
    };
    stream.flat_map(|batch| rows(batch.unwrap())).collect()
}

#[tokio::test]
async fn every_entity_is_read_back_as_json_has_it() {
    let database = filled().await;
    let mut reader = reader(&database).await;
    let mut shapes = Vec::new();
    for entity in entities().filter(|entity| entity.standing != Standing::Awaited) {
        let of = entity.name();
        for query in [
            format!("in:{of} include_retired:true"),
            format!("in:{of} include_retired:true stats:'count(), avg(count)'"),
            format!("in:{of} include_retired:true stats:'count() as n, values({}) as v'", entity.key[0]),
        ] {
            let Ok(wanted) = ask(&mut reader, "acme", &query, NOW).await else { continue };
            let plan = plan(&query, NOW, Extent::All { limit: None }).unwrap();
            let mut out = Vec::new();
            let mut writer = RowWriter::begin(RowFormat::Arrow, &plan.columns, &mut out).unwrap();
            let take = |row: Vec<Value>| writer.row(&row, &mut out).is_ok();
            reader.read("acme", &plan, take).await.unwrap();
            writer.end(&mut out).unwrap();
            assert_eq!(rows(&wanted.columns, &out), wanted.rows, "{query}");
            shapes.extend(wanted.columns.iter().map(|column| column.shape));
        }
    }
    for shape in [Shape::Text, Shape::Integer, Shape::Bool, Shape::Time, Shape::Texts, Shape::Json] {
        assert!(shapes.contains(&shape), "{shape:?}");
    }
}

/// More rows than a batch holds, of values that the views do not have.
#[test]
fn batches_follow_each_other() {
    let column = |name: &str, shape| Column { name: name.to_owned(), shape };
    let columns = [column("n", Shape::Number), column("texts", Shape::Texts), column("json", Shape::Json)];
    let (few, many) = (2, 4_000);
    let row = |n: u32| match n % 3 {
        0 => {
            let text = "c".repeat(if n < 2_500 { few } else { many });
            vec![json!(f64::from(n) / 7.0), json!(["a", null, text]), json!({ "n": n })]
        }
        1 => vec![json!(-0.5), json!([]), json!([1, "two", null])],
        _ => vec![Value::Null, Value::Null, Value::Null],
    };
    let all: Vec<Vec<Value>> = (0..5_000).map(row).collect();
    let mut out = Vec::new();
    let mut writer = RowWriter::begin(RowFormat::Arrow, &columns, &mut out).unwrap();
    for row in &all {
        writer.row(row, &mut out).unwrap();
    }
    writer.end(&mut out).unwrap();
    assert_eq!(rows(&columns, &out), all);
    let sizes: Vec<usize> =
        StreamReader::try_new(&*out, None).unwrap().map(|batch| batch.unwrap().num_rows()).collect();
    // By rows where those are small, and by bytes where they are not.
    assert_eq!(sizes[..2], [1_024, 1_024]);
    assert!(sizes.len() > 4 && sizes[3..].iter().all(|rows| (1..1_024).contains(rows)), "{sizes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_asked_for_over_http() {
    let stand = Stand::new(|_| {}).await;
    let path = "/api/query?q=in:devices+sort:uid&format=arrow";
    let response = stand.request(Method::GET, path, "bert").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/vnd.apache.arrow.stream");
    let written = response.bytes().await.unwrap();
    let (_, lines) = stand.get("/api/query?q=in:devices+sort:uid&format=ndjson", "bert").await;
    let columns = plan("in:devices", NOW, Extent::first()).unwrap().columns;
    let wanted = lines.lines().map(|line| {
        let row: Value = serde_json::from_str(line).unwrap();
        columns.iter().map(|column| row[&column.name].clone()).collect::<Vec<_>>()
    });
    let rows = rows(&columns, &written);
    assert_eq!(rows.len() as u128, DEVICES);
    assert_eq!(rows, wanted.collect::<Vec<_>>());

    let stand = Stand::new(|service| service.answer_bytes_max = 10_000).await;
    let cut = stand.request(Method::GET, path, "bert").send().await.unwrap();
    assert!(cut.bytes().await.is_err());
}
