//! Observations of 178 bytes, encoded and decoded on one core: our path beside the tree of values of
//! the crate `apache-avro`, in turns in one run, so that both have the same machine. The path of
//! values stops at its tree, short of an `Observation`.

use std::{error::Error, fs, hint::black_box, time::Duration};

use apache_avro::{Schema, from_avro_datum, to_avro_datum};
use serviceradar_schemas::{
    Action, Address, Claim, Coverage, Decoder, Event, Observation, Source,
    codec::SINGLE_OBJECT_BYTES,
    encode, encode_into,
    time::{SECOND, parse},
};

/// Bytes of an event, framing included.
const EVENT_BYTES: usize = 178;
/// Events of a round: the few megabytes that a consumer fetches at once.
const EVENTS: usize = 20_000;
/// Times that they are gone over in a measurement: the kernel counts in ticks of some milliseconds.
const PASSES: usize = 20;
const ROUNDS: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let observations: Vec<Observation> = (0..EVENTS).map(observation).collect();
    let events: Vec<Vec<u8>> = observations.iter().map(encode).collect();
    if let Some(other) = events.iter().find(|event| event.len() != EVENT_BYTES) {
        return Err(format!("an event has {} bytes", other.len()).into());
    }
    let schema = Schema::parse_str(Observation::SCHEMA)?;
    let values: Vec<_> = events
        .iter()
        .map(|event| from_avro_datum(&schema, &mut &event[SINGLE_OBJECT_BYTES..], None))
        .collect::<Result<_, _>>()?;
    for _ in 0..ROUNDS {
        measure("decode", || {
            let mut decoder = Decoder::<Observation>::new();
            events.iter().try_for_each(|event| decoder.decode(event).map(|read| drop(black_box(read))))
        })?;
        measure("decode, values", || {
            events.iter().try_for_each(|event| {
                let datum = &mut &event[SINGLE_OBJECT_BYTES..];
                from_avro_datum(&schema, datum, None).map(|read| drop(black_box(read)))
            })
        })?;
        measure("encode", || {
            let mut bytes = Vec::new();
            observations.iter().for_each(|observation| {
                bytes.clear();
                encode_into(observation, &mut bytes);
                black_box(&bytes);
            });
            Ok::<_, std::convert::Infallible>(())
        })?;
        // Copying the tree stands in for building it.
        measure("encode, values", || {
            values.iter().try_for_each(|value| {
                to_avro_datum(&schema, value.clone()).map(|bytes| drop(black_box(bytes)))
            })
        })?;
    }
    Ok(())
}

/// Time that this thread has had a core to itself: what others do on the machine does not count.
fn on_core() -> Result<Duration, Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = stat.split(' ').next().ok_or("schedstat is empty")?.parse()?;
    Ok(Duration::from_nanos(nanos))
}

/// Says how many events per second of a core `run` works off.
fn measure<E: Error + 'static>(what: &str, run: impl Fn() -> Result<(), E>) -> Result<(), Box<dyn Error>> {
    let started = on_core()?;
    for _ in 0..PASSES {
        run()?;
    }
    let per_second = (PASSES * EVENTS) as f64 / (on_core()? - started).as_secs_f64();
    println!("{what:<16} {per_second:>12.0} events/s");
    Ok(())
}

/// A sighting of a device with two MACs and an address, as a crawl has them.
fn observation(number: usize) -> Observation {
    let claim = |port: usize| Claim {
        namespace: "mac".into(),
        value: format!("00:1b:54:{:02x}:{:02x}:{port:02x}", number >> 8 & 0xff, number & 0xff).into(),
    };
    let ip = format!("10.0.{}.{}", 100 + number / 250 % 100, 100 + number % 100);
    Observation {
        id: format!("{number:08}"),
        event_time: parse("2026-01-01T00:00:00Z").unwrap_or_default() + number as i64 * SECOND,
        partition: "default".to_owned(),
        source: Source { kind: "armis".to_owned(), instance: "hq".to_owned() },
        native_key: format!("{:06}", 100_000 + number),
        action: Action::Assert,
        coverage: Coverage::Full,
        claims: vec![claim(1), claim(2)],
        addresses: vec![Address { ip, ..Address::default() }],
        hostname: Some(format!("sw-{number:05}.example.net")),
        vendor: Some("Cisco".to_owned()),
        model: Some("Catalyst 9300-48UN".to_owned()),
        risk_score: Some(40),
        ..Observation::default()
    }
}
