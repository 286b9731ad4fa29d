//! What routing one message costs: direct, topic with 10 to 10,000 bindings, headers.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use prontomq::model::{Arguments, Name};
use prontomq::routing::{Binding, Bindings, Destination, Exchange, ExchangeKind, route};
use prontomq::wire::table::{Table, TableWriter, Value};
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

fn headers(c: &mut Criterion) {
    let mut bindings = Bindings::new(ExchangeKind::Headers);
    for number in 0..100 {
        bindings.bind(Binding {
            destination: Destination::Queue(Name::from(format!("queue-{number}"))),
            routing_key: "".into(),
            arguments: Arguments::default()
                .with("format", amq_protocol::types::AMQPValue::LongString("pdf".into()))
                .with("number", amq_protocol::types::AMQPValue::LongInt(number)),
        });
    }
    let exchange = Exchange { bindings, alternate: None };
    let mut bytes = Vec::new();
    let mut writer = TableWriter::new(&mut bytes);
    writer.value(b"format", Value::LongString(b"pdf"));
    writer.value(b"number", Value::I32(50));
    writer.value(b"trace", Value::LongString(b"0123456789abcdef"));
    let table = Table::check(&bytes).expect("written just above").0;
    c.bench_function("headers/100", |b| {
        b.iter(|| route(b"x", b"", black_box(Some(table)), |_| Some(&exchange)));
    });
}

criterion_group!(benches, direct, topic, headers);
criterion_main!(benches);
