//! The cost of a delivery does not grow with the number of waiting queues. It is counted in inputs of queues, not in
//! time.

use super::*;

const PREFETCH: u32 = 30;
const DELIVERIES: u64 = 3_000;

/// Number of inputs that the queues take per thousand deliveries, each acknowledged individually, once all queues stand
/// in line.
fn inputs_per_thousand(queues: usize, consumers: usize) -> u64 {
    let mut world = World::new();
    let channel = world.open_channel();
    world.limit(channel, PREFETCH);
    for queue in world.make_queues(queues) {
        world.publish(queue, DELIVERIES as usize / queues * 2 + 2 * PREFETCH as usize);
        for _ in 0..consumers {
            world.consume(channel, queue, |_| {});
        }
    }
    world.run_all();
    let (applied, delivered) = (world.applied, world.delivered);
    while world.delivered < delivered + DELIVERIES {
        let held = world.channels.get_mut(&channel).unwrap().unacked.remove(0);
        world.settle(channel, held, SettleOutcome::Acknowledged);
        world.run_all();
    }
    (world.applied - applied) * 1000 / DELIVERIES
}

#[test]
fn a_permit_wakes_one_queue_however_many_wait() {
    let few = inputs_per_thousand(3, 1);
    assert_eq!(few, 2000, "one acknowledgement and one grant per delivery");
    for queues in [30, 300, 3000] {
        assert_eq!(inputs_per_thousand(queues, 1), few, "{queues} queues");
    }
}
