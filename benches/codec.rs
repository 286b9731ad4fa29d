//! What the wire layer costs per message, beside amq-protocol in the same run.
//!
//! `cargo bench --bench codec`. Before timing it counts allocations and stops when a publish takes more than one or a
//! delivery or acknowledgement any. Goals: a publish of 16 bytes parsed and owned under 60 ns, a delivery under 40 ns.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, WriteContext, gen_frame, parse_frame};
use amq_protocol::protocol::{AMQPClass, BasicProperties, basic};
use criterion::{BatchSize, Criterion, Throughput};
use prontomq::internals::model::message::Message;
use prontomq::internals::wire::content_header::ContentHeader;
use prontomq::internals::wire::frame::{payload_max, read_frame};
use prontomq::internals::wire::method::ClientMethod;
use prontomq::internals::wire::properties::{Properties, PropertiesWriter};
use prontomq::internals::wire::writer::{
    ConsumerPrefix, Content, write_ack, write_address, write_deliver, write_publish,
};

const FRAME_MAX: u32 = 131_072;
const EXCHANGE: &[u8] = b"";
const ROUTING_KEY: &[u8] = b"task_queue";
const CONSUMER_TAG: &[u8] = b"ctag1.3a9f8a2d5c1e4b7f";

struct CountingAllocator;

thread_local! {
    /// Of this thread, and cheap, so that counting does not disturb the times.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn count_allocation() {
    ALLOCATIONS.with(|count| count.set(count.get() + 1));
}

#[expect(unsafe_code, reason = "the trait is unsafe; every call is passed on to the system's allocator")]
// SAFETY: every method hands its arguments unchanged to `System`, which upholds the trait's contract.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_allocation();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and the memory came from `System`.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count_allocation();
        // SAFETY: the caller keeps the contract of `realloc`, and the memory came from `System`.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn allocations_of<T>(work: impl FnOnce() -> T) -> usize {
    let before = ALLOCATIONS.get();
    black_box(work());
    ALLOCATIONS.get() - before
}

fn publish_frames(body: &[u8]) -> Vec<u8> {
    let mut address = Vec::new();
    write_address(&mut address, EXCHANGE, ROUTING_KEY);
    let properties = PropertiesWriter::new().delivery_mode(2).to_vec();
    let content = Content { address: &address, properties: &properties, body };
    let mut frames = Vec::new();
    write_publish(&mut frames, 1, false, content, payload_max(FRAME_MAX));
    frames
}

/// Three frames become one owned message, as a session does it.
#[inline(never)]
fn own_publish(input: &[u8]) -> Message {
    let limit = payload_max(FRAME_MAX);
    let next = |at: usize| read_frame(&input[at..], limit).expect("the frames are well formed").expect("and complete");
    let method = next(0);
    let header = next(method.consumed);
    let body = next(method.consumed + header.consumed);
    let Ok(ClientMethod::BasicPublish(publish)) = ClientMethod::parse(method.frame.payload) else {
        panic!("the first frame is a publish");
    };
    let header = ContentHeader::parse(header.frame.payload).expect("the second is its header");
    let properties = Properties::check(header.properties).expect("the properties are well formed");
    assert_eq!(header.body_size, body.frame.payload.len() as u64, "the third is all of its body");
    Message::new(publish.exchange, publish.routing_key, &properties, body.frame.payload)
}

#[inline(never)]
fn amq_publish(input: &[u8]) -> [AMQPFrame; 3] {
    let (input, method) = parse_frame(input).expect("the frames are well formed");
    let (input, header) = parse_frame(input).expect("the frames are well formed");
    let (_, body) = parse_frame(input).expect("the frames are well formed");
    [method, header, body]
}

fn amq_write(out: Vec<u8>, frame: &AMQPFrame) -> Vec<u8> {
    gen_frame(frame)(WriteContext::from(out)).expect("memory can be written").into_inner().0
}

fn amq_delivery(body: &[u8]) -> [AMQPFrame; 3] {
    let deliver = basic::Deliver {
        consumer_tag: String::from_utf8_lossy(CONSUMER_TAG).as_ref().into(),
        delivery_tag: 7,
        redelivered: false,
        exchange: "".into(),
        routing_key: String::from_utf8_lossy(ROUTING_KEY).as_ref().into(),
    };
    let header = AMQPContentHeader {
        class_id: 60,
        body_size: body.len() as u64,
        properties: BasicProperties::default().with_delivery_mode(2),
    };
    [
        AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver))),
        AMQPFrame::Header(1, header),
        AMQPFrame::Body(1, body.to_vec()),
    ]
}

fn bench_publish(criterion: &mut Criterion, name: &str, body: &[u8]) {
    let frames = publish_frames(body);
    let count = allocations_of(|| own_publish(&frames));
    assert_eq!(count, 1, "a publish takes one allocation");
    let amq_count = allocations_of(|| amq_publish(&frames));
    eprintln!("publish {name}: {count} allocation, amq-protocol {amq_count}");

    let mut group = criterion.benchmark_group(format!("publish {name}"));
    group.throughput(Throughput::Elements(1));
    group.bench_function("own", |bencher| {
        bencher.iter(|| own_publish(black_box(&frames)));
    });
    group.bench_function("amq-protocol", |bencher| {
        bencher.iter(|| amq_publish(black_box(&frames)));
    });
    group.finish();
}

fn bench_deliver(criterion: &mut Criterion, name: &str, body: &[u8]) {
    let message = own_publish(&publish_frames(body));
    let prefix = ConsumerPrefix::new(1, CONSUMER_TAG);
    let limit = payload_max(FRAME_MAX);
    let mut out = Vec::with_capacity(64 * 1024);
    let count = allocations_of(|| write_deliver(&mut out, &prefix, 7, false, message.content(), limit));
    assert_eq!(count, 0, "a delivery into a warm buffer takes no allocation");
    let amq_frames = amq_delivery(body);
    let amq_out = amq_frames.iter().fold(Vec::new(), amq_write);
    assert_eq!(out, amq_out, "both write the same bytes");
    let amq_count = allocations_of(|| amq_frames.iter().fold(Vec::with_capacity(2048), amq_write));
    eprintln!("deliver {name}: {count} allocations, amq-protocol {}", amq_count - 1);

    let mut group = criterion.benchmark_group(format!("deliver {name}"));
    group.throughput(Throughput::Elements(1));
    group.bench_function("own", |bencher| {
        bencher.iter(|| {
            out.clear();
            write_deliver(&mut out, &prefix, black_box(7), false, black_box(&message).content(), limit);
            black_box(&out);
        });
    });
    // Frames already built: a broker would have to build them from the message as well.
    group.bench_function("amq-protocol", |bencher| {
        bencher.iter_batched_ref(
            || Vec::with_capacity(2048),
            |out| {
                *out = black_box(&amq_frames).iter().fold(std::mem::take(out), amq_write);
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn bench_ack(criterion: &mut Criterion) {
    let mut frame = Vec::with_capacity(64);
    let count = allocations_of(|| write_ack(&mut frame, 1, 7, false));
    let parse = |input: &[u8]| {
        let cut = read_frame(input, payload_max(FRAME_MAX)).expect("well formed").expect("complete");
        ClientMethod::parse(cut.frame.payload).is_ok_and(|method| matches!(method, ClientMethod::BasicAck(_)))
    };
    assert_eq!(count + allocations_of(|| parse(&frame)), 0, "an acknowledgement takes no allocation");
    let ack = basic::Ack { delivery_tag: 7, multiple: false };
    let amq_ack = AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::Ack(ack)));

    let mut group = criterion.benchmark_group("ack");
    group.throughput(Throughput::Elements(1));
    group.bench_function("own parse", |bencher| {
        bencher.iter(|| parse(black_box(&frame)));
    });
    group.bench_function("amq-protocol parse", |bencher| {
        bencher.iter(|| parse_frame(black_box(&frame[..])));
    });
    let mut out = Vec::with_capacity(64);
    group.bench_function("own write", |bencher| {
        bencher.iter(|| {
            out.clear();
            write_ack(&mut out, 1, black_box(7), false);
            black_box(&out);
        });
    });
    group.bench_function("amq-protocol write", |bencher| {
        bencher.iter_batched_ref(
            || Vec::with_capacity(64),
            |out| *out = amq_write(std::mem::take(out), black_box(&amq_ack)),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (name, len) in [("16 B", 16), ("1 KiB", 1024)] {
        let body = vec![b'x'; len];
        bench_publish(&mut criterion, name, &body);
        bench_deliver(&mut criterion, name, &body);
    }
    bench_ack(&mut criterion);
    criterion.final_summary();
}
