//! What the queue itself costs per message that is published, delivered and acknowledged: with nothing, a thousand and a
//! million messages ahead of it, and with 1, 10 and 255 priorities.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use prontomq::internals::model::{
    ChannelKey, ConnectionId, ConsumerKey, ConsumerSlot, Holder, LendId, LimitKey, Message, Monotonic, Name, Notice,
    Now, QueueId, RequestNo, SettleOutcome, WallMillis,
};
use prontomq::internals::queue::{
    Consume, ConsumerLimits, Effects, Enqueue, HoldLimits, Permits, QueueCommand, QueueInput, QueueLimits,
    QueueSettings, QueueState, Requester, WindowLimits,
};
use prontomq::internals::wire::properties::{Properties, PropertiesWriter};

/// Messages of one input, as a read of a socket brings them.
const BATCH: usize = 64;
const NOW: Now = Now { monotonic: Monotonic(0), wall: WallMillis(0) };
const HOLDER: Holder = Holder { connection: ConnectionId(1), channel: ChannelKey { number: 1, incarnation: 1 } };
const CONSUMER: ConsumerKey = ConsumerKey { holder: HOLDER, slot: ConsumerSlot(1) };

struct NoLimits;

impl Permits for NoLimits {
    fn request(&mut self, _: LimitKey) -> u32 {
        1
    }

    fn end_grant(&mut self, _: LimitKey, _: u32) {}

    fn withdraw(&mut self, _: LimitKey) -> bool {
        true
    }
}

/// A queue with a consumer that has a batch of deliveries in its hands, or as many as there are.
struct Bench {
    queue: QueueState,
    messages: Vec<Message>,
    out: Effects,
    lends: Vec<LendId>,
}

impl Bench {
    fn new(depth: usize, priority_max: u8) -> Self {
        let plain = QueueSettings::plain(QueueId(1), Name::from("/"), Name::from("q"));
        let settings = QueueSettings { priority_max, ..plain };
        let limits = QueueLimits {
            hold: HoldLimits::default(),
            window: WindowLimits::default(),
            consumer: ConsumerLimits {
                messages: 1 << 20,
                messages_max: 1 << 20,
                bytes_max: 1 << 30,
                unacked_max: u32::MAX,
            },
        };
        let levels = u32::from(priority_max) + 1;
        let messages = (0..BATCH as u32).map(|number| message((number % levels) as u8)).collect();
        let queue = QueueState::new(settings, limits, NOW);
        let mut bench = Self { queue, messages, out: Effects::default(), lends: Vec::new() };
        for _ in 0..depth.div_ceil(BATCH) {
            bench.publish();
        }
        let requester = Requester { connection: HOLDER.connection, channel: HOLDER.channel, request: RequestNo(1) };
        bench.apply(QueueCommand::Consume(Consume {
            requester,
            key: CONSUMER,
            tag: Name::from("c"),
            no_ack: false,
            exclusive: false,
            priority: 0,
            prefetch: BATCH as u32,
            channel_limit: None,
        }));
        bench.take_lends();
        bench
    }

    fn apply(&mut self, input: impl Into<QueueInput>) {
        self.queue.apply(input.into(), NOW, &mut NoLimits, &mut self.out);
    }

    fn publish(&mut self) {
        let messages = self.messages.iter().map(|message| Enqueue { message: message.clone(), promise: None });
        let messages = messages.collect();
        self.apply(QueueCommand::Publish(messages));
    }

    fn take_lends(&mut self) {
        let lends = self.out.notices.drain(..).filter_map(|(_, notice)| match notice {
            Notice::Deliver(delivery) => delivery.lend,
            _ => None,
        });
        self.lends.extend(lends);
    }

    /// One batch comes, one goes.
    fn pass(&mut self) {
        self.publish();
        self.take_lends();
        let lends = std::mem::take(&mut self.lends);
        let count = lends.len() as u32;
        assert_eq!(count, BATCH as u32, "the consumer has a batch in its hands");
        self.apply(QueueCommand::Written { consumer: CONSUMER, count, bytes: 0 });
        self.apply(QueueCommand::Settle { lends, outcome: SettleOutcome::Acknowledged });
        self.take_lends();
    }
}

fn message(priority: u8) -> Message {
    let bytes = PropertiesWriter::new().priority(priority).to_vec();
    let properties = Properties::check(&bytes).expect("written just above");
    Message::new(b"", b"q", &properties, b"0123456789abcdef")
}

fn depth(c: &mut Criterion) {
    let mut benches = c.benchmark_group("depth");
    benches.throughput(Throughput::Elements(BATCH as u64));
    for depth in [0, 1_000, 1_000_000] {
        let mut bench = Bench::new(depth, 0);
        benches.bench_function(BenchmarkId::from_parameter(depth), |b| b.iter(|| bench.pass()));
    }
}

fn priorities(c: &mut Criterion) {
    let mut benches = c.benchmark_group("priorities");
    benches.throughput(Throughput::Elements(BATCH as u64));
    for priorities in [1, 10, 255] {
        let mut bench = Bench::new(100_000, (priorities - 1) as u8);
        benches.bench_function(BenchmarkId::from_parameter(priorities), |b| b.iter(|| bench.pass()));
    }
}

criterion_group!(benches, depth, priorities);
criterion_main!(benches);
