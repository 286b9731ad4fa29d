//! Equal consumers get equal shares, regardless of how many deliveries the client acknowledges at once.

use super::*;

const CASES: u64 = 100;
/// Fewest deliveries in which shares are compared, in total and per consumer.
const WINDOW_MIN: u64 = 300;
const WINDOW_EACH: u64 = 30;
const WINDOWS: u64 = 4;

/// Acknowledges deliveries in bursts until the client has received `deliveries` more.
fn take(world: &mut World, channel: ChannelKey, deliveries: u64, mut burst: impl FnMut() -> u64) {
    let until = world.delivered + deliveries;
    while world.delivered < until {
        let held = &mut world.channels.get_mut(&channel).expect("it is open").unacked;
        let count = (burst() as usize).clamp(1, held.len());
        for held in held.drain(..count).collect::<Vec<_>>() {
            world.settle(channel, held, SettleOutcome::Acknowledged);
        }
        world.run_all();
    }
}

#[test]
fn shares_are_equal_for_any_number_of_queues_consumers_and_permits() {
    for seed in 0..CASES {
        let mut random = Random::new(seed);
        let mut below = |limit: u64| random.next_u64() % limit;
        let (queues, consumers, limit) = (1 + below(16), 1 + below(5), 1 + below(150));
        let window = WINDOW_MIN.max(WINDOW_EACH * queues * consumers) + limit;
        let mut world = World::new();
        let channel = world.open_channel();
        world.limit(channel, limit as u32);
        for queue in world.make_queues(queues as usize) {
            world.publish(queue, ((WINDOWS + 2) * window * 2 / queues + 2 * limit) as usize);
            for _ in 0..consumers {
                world.consume(channel, queue, |_| {});
            }
        }
        world.run_all();
        // Bursts of one size, or of random sizes.
        let most = 1 + below(limit);
        let mut burst = || if most % 2 == 0 { most } else { 1 + below(most) };
        take(&mut world, channel, window, &mut burst);
        for _ in 0..WINDOWS {
            world.shares.clear();
            take(&mut world, channel, window, &mut burst);
            let shares = &world.shares;
            let (least, most) = (shares.values().min().unwrap(), shares.values().max().unwrap());
            let all = shares.len() as u64 == queues * consumers;
            assert!(all && *most <= 2 * least, "{queues} queues, {consumers} consumers, limit {limit}: {shares:?}");
        }
    }
}

/// Acknowledges everything until the client has no unacknowledged delivery.
fn take_all(world: &mut World, channel: ChannelKey) {
    loop {
        let held = std::mem::take(&mut world.channels.get_mut(&channel).expect("it is open").unacked);
        if held.is_empty() {
            return;
        }
        held.into_iter().for_each(|held| world.settle(channel, held, SettleOutcome::Acknowledged));
        world.run_all();
    }
}

#[test]
fn consumers_that_waited_for_permits_have_their_turns_when_permits_are_free() {
    for seed in 0..CASES {
        let mut random = Random::new(seed);
        let mut below = |limit: u64| random.next_u64() % limit;
        let (lower, higher, limit) = (below(5), 1 + below(5), 1 + below(12));
        let mut world = World::new();
        let (channel, other) = (world.open_channel(), world.open_channel());
        world.limit(channel, limit as u32);
        let queue = world.make_queue();
        let of_lower: Vec<_> = (0..lower).map(|_| world.consume(channel, queue, |_| {})).collect();
        let urgent = |consume: &mut Consume| consume.priority = 1;
        let of_higher: Vec<_> = (0..higher).map(|_| world.consume(channel, queue, urgent)).collect();
        // Consumers without a limit take the messages behind the first one that finds no permit.
        for _ in 0..below(3) {
            world.consume(other, queue, |consume| (consume.no_ack, consume.priority) = (true, 1));
        }
        world.run_all();
        for _ in 0..3 {
            // More messages than permits: all at once, or one by one so that a permit is always free.
            for _ in 0..1 + below(3) {
                world.publish(queue, (1 + below(limit + lower + higher)) as usize);
                world.run_all();
            }
            take_all(&mut world, channel);
            world.shares.clear();
            for _ in 0..20 * higher {
                world.publish(queue, 1);
                world.run_all();
                take_all(&mut world, channel);
            }
            let turns = |slots: &[ConsumerSlot]| -> Vec<u64> {
                slots.iter().map(|slot| world.shares.get(slot).copied().unwrap_or(0)).collect()
            };
            let (least, most) = (turns(&of_higher).into_iter().min(), turns(&of_higher).into_iter().max());
            let is_equal = least > Some(0) && most <= least.map(|least| least + 1);
            assert!(is_equal, "{higher} of {of_higher:?}, limit {limit}: {:?}", world.shares);
            assert_eq!(
                turns(&of_lower).iter().sum::<u64>(),
                0,
                "the consumers of higher priority could take everything"
            );
        }
    }
}
