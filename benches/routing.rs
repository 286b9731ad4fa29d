//! What routing one message costs: direct, topic with 10 to 10,000 bindings, headers.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use prontomq::internals::model::{Arguments, Name};
use prontomq::internals::routing::{Binding, Bindings, Destination, Exchange, ExchangeKind, route};
use prontomq::internals::wire::table::{Table, TableWriter, Value};
use std::hint::black_box;

fn exchange(kind: ExchangeKind, keys: impl Iterator<Item = String>) -> Exchange {
    let mut bindings = Bindings::new(kind);
    for (number, key) in keys.enumerate() {
        let destination = Destination::Queue(Name::from(format!("queue-{number}")));
        bindings.bind(Binding { destination, routing_key: key.into(), arguments: Arguments::default() });
    }
    Exchange { bindings, alternate: None }
}

fn direct(c: &mut Criterion) {
    let exchange = exchange(ExchangeKind::Direct, (0..1000).map(|number| format!("key-{number}")));
    c.bench_function("direct/1000", |b| {
        b.iter(|| route(b"x", black_box(b"key-500"), None, |_| Some(&exchange)));
    });
}

/// One binding in ten has a `*` and one in ten a `#`; a message matches one of each kind and one exact key.
fn topic_key(number: usize) -> String {
    let (group, kind) = (number / 10, number % 10);
    match kind {
        0 => format!("stock.*.group{group}.eur"),
        1 => format!("stock.nyse.group{group}.#"),
        _ => format!("stock.nyse.group{group}.kind{kind}"),
    }
}

fn topic(c: &mut Criterion) {
    let mut benches = c.benchmark_group("topic");
    for count in [10, 1_000, 10_000] {
        let exchange = exchange(ExchangeKind::Topic, (0..count).map(topic_key));
        let key = format!("stock.nyse.group{}.kind5", count / 20);
        benches.bench_with_input(BenchmarkId::from_parameter(count), key.as_bytes(), |b, key| {
            b.iter(|| route(b"x", black_box(key), None, |_| Some(&exchange)));
        });
    }
}

fn headers_exchange(arguments: impl Iterator<Item = Arguments>) -> Exchange {
    let mut bindings = Bindings::new(ExchangeKind::Headers);
    for (number, arguments) in arguments.enumerate() {
        let destination = Destination::Queue(Name::from(format!("queue-{number}")));
        bindings.bind(Binding { destination, routing_key: "".into(), arguments });
    }
    Exchange { bindings, alternate: None }
}

fn headers(c: &mut Criterion) {
    let mut benches = c.benchmark_group("headers");
    let exchange = headers_exchange((0..100).map(|number| {
        Arguments::default().with("format", Value::LongString(b"pdf")).with("number", Value::I32(number))
    }));
    let mut bytes = Vec::new();
    let mut writer = TableWriter::new(&mut bytes);
    writer.value(b"format", Value::LongString(b"pdf"));
    writer.value(b"number", Value::I32(50));
    writer.value(b"trace", Value::LongString(b"0123456789abcdef"));
    let table = Table::check(&bytes).expect("written just above").0;
    benches.bench_function("100", |b| {
        b.iter(|| route(b"x", b"", black_box(Some(table)), |_| Some(&exchange)));
    });
    for kind in ["all", "any", "all-with-x", "any-with-x"] {
        let (exchange, bytes) = many_headers(kind, 5_000);
        let table = Table::check(&bytes).expect("written just above").0;
        benches.bench_function(BenchmarkId::new("5000x5000", kind), |b| {
            b.iter(|| route(b"x", b"", black_box(Some(table)), |_| Some(&exchange)));
        });
    }
}

/// As many bindings as headers, two arguments each. All headers are there, and every tenth binding matches.
fn many_headers(kind: &str, count: i32) -> (Exchange, Vec<u8>) {
    let exchange = headers_exchange((0..count).map(|number| {
        Arguments::default()
            .with("x-match", Value::LongString(kind.as_bytes()))
            .with(&format!("header-{number:04}"), Value::I32(if number % 10 == 0 { 0 } else { 1 }))
            .with(&format!("header-{:04}", (number + 10) % count), Value::I32(if number % 10 == 0 { 0 } else { 1 }))
    }));
    let mut bytes = Vec::new();
    let mut writer = TableWriter::new(&mut bytes);
    for number in 0..count {
        writer.value(format!("header-{number:04}").as_bytes(), Value::I32(0));
    }
    (exchange, bytes)
}

criterion_group!(benches, direct, topic, headers);
criterion_main!(benches);
