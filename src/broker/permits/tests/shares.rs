//! Equal consumers get equal shares, whatever the client acknowledges at once.

use super::*;

const CASES: u64 = 100;
/// Deliveries in which every consumer's share is looked at, at least; and for each consumer.
const WINDOW_MIN: u64 = 300;
const WINDOW_EACH: u64 = 30;
const WINDOWS: u64 = 4;

/// Takes deliveries and acknowledges them in bursts, until the client has had so many more.
fn take(world: &mut World, channel: ChannelKey, deliveries: u64, mut burst: impl FnMut() -> u64) {
    let until = world.delivered + deliveries;
    while world.delivered < until {
        let held = &mut world.channels.get_mut(&channel).expect("it is open").unacked;
        let count = (burst() as usize).clamp(1, held.len());
        for held in held.drain(..count).collect::<Vec<_>>() {
            world.settle(channel, held, Outcome::Acknowledged);
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
        // Bursts of one size, or of any.
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
