//! In any order of events, the used permits equal the lent deliveries, and no queue waits for a free permit.

use super::*;

/// The environment variable with the number of steps, for a long run by hand.
const STEPS: &str = "PRONTOMQ_PERMIT_STEPS";
const STEPS_USUALLY: u64 = 30_000;
/// A new world begins after this many steps.
const STEPS_OF_A_WORLD: u64 = 1_000;
const QUEUES: usize = 4;
const CHANNELS: usize = 2;
const LIMITS: u64 = 7;

struct Model {
    world: World,
    random: Random,
    /// The queues' part of each limit after the last step: granted permits, and deliveries on their way that use one.
    before: BTreeMap<ChannelKey, (LimitId, u32, usize)>,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut world = World::new();
        world.make_queues(QUEUES);
        for _ in 0..CHANNELS {
            world.open_channel();
        }
        Self { world, random: Random::new(seed), before: BTreeMap::new() }
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.random.next_u64() % limit as u64) as usize
    }

    fn a_queue(&mut self) -> QueueId {
        let alive: Vec<_> = self.world.queues.iter().filter(|(_, queue)| !queue.state.has_ended()).collect();
        let ids: Vec<QueueId> = alive.into_iter().map(|(id, _)| *id).collect();
        ids[self.below(ids.len())]
    }

    fn a_channel(&mut self) -> ChannelKey {
        let keys: Vec<_> = self.world.channels.keys().copied().collect();
        keys[self.below(keys.len())]
    }

    fn step(&mut self) {
        let channel = self.a_channel();
        match self.below(100) {
            0..30 => {
                let busy: Vec<QueueId> =
                    self.world.queues.iter().filter(|(_, queue)| !queue.inbox.is_empty()).map(|(id, _)| *id).collect();
                if !busy.is_empty() {
                    let queue = busy[self.below(busy.len())];
                    self.world.run_queue(queue);
                }
            }
            30..55 => {
                let takes = self.below(30) > 0;
                self.world.run_session(takes);
            }
            55..63 => {
                let (queue, count) = (self.a_queue(), self.below(6));
                self.world.publish(queue, count);
            }
            63..68 => self.consume(channel),
            68..71 => self.cancel(channel),
            71..73 => {
                let (queue, no_ack) = (self.a_queue(), self.below(3) == 0);
                let requester = self.world.requester(channel);
                self.world.channels.get_mut(&channel).unwrap().attached.insert(queue);
                self.world.push(queue, QueueCommand::Get { requester, no_ack });
            }
            73..88 => self.settle(channel),
            88..91 => self.end_transaction(channel),
            91..96 => {
                // One change in three ends the limit.
                let limit = self.random.next_u64() % (LIMITS * 3 / 2);
                self.world.limit(channel, if limit < LIMITS { limit as u32 } else { 0 });
            }
            96 => {
                self.world.close_channel(channel);
                self.world.open_channel();
            }
            97 => {
                let (queue, requester) = (self.a_queue(), self.world.requester(channel));
                self.world.push(queue, QueueCommand::Delete { requester, if_unused: false, if_empty: false });
                self.world.make_queue();
            }
            98 => self.fail(),
            _ => self.end_connection(),
        }
    }

    fn consume(&mut self, channel: ChannelKey) {
        let queue = self.a_queue();
        let (no_ack, prefetch) = (self.below(5) == 0, self.below(4) as u32);
        let priority = self.below(2) as i64;
        self.world.consume(channel, queue, |consume| {
            (consume.no_ack, consume.prefetch, consume.priority) = (no_ack, prefetch, priority);
        });
    }

    fn cancel(&mut self, channel: ChannelKey) {
        let consumers = self.world.channels[&channel].consumers.len();
        if consumers == 0 {
            return;
        }
        let at = self.below(consumers);
        let Consumer { slot, queue, .. } = self.world.channels.get_mut(&channel).unwrap().consumers.swap_remove(at);
        let requester = self.world.requester(channel);
        let key = ConsumerKey { holder: holder(channel), slot };
        self.world.push(queue, QueueCommand::Cancel { requester, key });
    }

    /// An ack, nack or reject; or one of these in a transaction.
    fn settle(&mut self, channel: ChannelKey) {
        let unacked = self.world.channels[&channel].unacked.len();
        if unacked == 0 {
            return;
        }
        let at = self.below(unacked);
        let outcome = [
            SettleOutcome::Acknowledged,
            SettleOutcome::Acknowledged,
            SettleOutcome::Requeued,
            SettleOutcome::Rejected,
        ][self.below(4)];
        let in_transaction = self.below(4) == 0;
        let live = self.world.channels.get_mut(&channel).unwrap();
        let held = live.unacked.remove(at);
        if in_transaction {
            live.held_back.push((held, outcome));
        } else {
            self.world.settle(channel, held, outcome);
        }
    }

    fn end_transaction(&mut self, channel: ChannelKey) {
        let commits = self.below(2) == 0;
        let live = self.world.channels.get_mut(&channel).unwrap();
        for (held, outcome) in std::mem::take(&mut live.held_back) {
            if commits {
                self.world.settle(channel, held, outcome);
            } else {
                self.world.channels.get_mut(&channel).unwrap().unacked.push(held);
            }
        }
    }

    /// A queue's turn panics: its inbox and its grants are lost.
    fn fail(&mut self) {
        let id = self.a_queue();
        let queue = self.world.queues.get_mut(&id).unwrap();
        queue.inbox.clear();
        queue.state = QueueState::failed(settings(id), limits(), NOW);
        let channels: Vec<ChannelKey> = self.world.permits.keys().copied().collect();
        for channel in channels {
            let limit = self.world.permits[&channel].id();
            self.world.with_permits(channel, |permits, grants| permits.revoke(id, grants));
            self.world.inlet.push_back(Notice::Limited { channel, queue: id, limit });
        }
        self.world.make_queue();
    }

    fn end_connection(&mut self) {
        let channels: Vec<ChannelKey> = self.world.channels.keys().copied().collect();
        channels.into_iter().for_each(|channel| self.world.close_channel(channel));
        self.world.inlet.clear();
        for _ in 0..CHANNELS {
            self.world.open_channel();
        }
    }

    /// Checks that used permits equal lent deliveries, that granted permits are on their way to queues, and that no
    /// limit is exceeded.
    fn check(&mut self) {
        let Self { world, before, .. } = self;
        for (channel, live) in &world.channels {
            let Some(permits) = world.permits.get(channel) else {
                assert_eq!(live.limit, None);
                before.remove(channel);
                continue;
            };
            let (id, counts) = (permits.id(), permits.counts());
            assert_eq!(live.limit, Some(id));
            let in_flight = |with_permit: bool| {
                let delivers = |notice: &&Notice| matches!(notice, Notice::Deliver(delivery) if delivery.channel == *channel && delivery.lend.is_some() && (delivery.permit == Some(id)) == with_permit);
                world.inlet.iter().filter(delivers).count()
            };
            let held = live.unacked.iter().chain(live.held_back.iter().map(|(held, _)| held));
            let counted = held.filter(|held| held.counted).count();
            assert_eq!(counts.lent as usize, counted + in_flight(true), "used = lent");
            let granted = |input: &QueueCommand| match input {
                QueueCommand::Grant { limit, permits } if limit.holder.channel == *channel && limit.id == id => {
                    *permits
                }
                _ => 0,
            };
            let granted: u32 = world.queues.values().flat_map(|queue| &queue.inbox).map(granted).sum();
            assert_eq!(counts.granted, granted, "a grant has an owner");
            // A queue may use what it is granted within the same step.
            let of_queues = granted as usize + in_flight(true);
            let (_, last_granted, last_of_queues) =
                before.get(channel).filter(|(last, ..)| *last == id).copied().unwrap_or((id, 0, 0));
            if granted > last_granted || of_queues > last_of_queues {
                assert!(counts.lent + granted <= counts.limit, "nothing is granted beyond the limit: {counts:?}");
                assert_eq!(
                    in_flight(false),
                    0,
                    "nothing is granted before all deliveries without permits have arrived"
                );
            }
            before.insert(*channel, (id, granted, of_queues));
        }
    }

    /// Runs until idle, and checks that every consumer that can take a message has got it.
    fn check_idle(&mut self) {
        self.world.run_all();
        self.check();
        for (channel, live) in &self.world.channels {
            let counts = self.world.permits.get(channel).map(ChannelPermits::counts);
            if let Some(counts) = counts {
                assert_eq!(counts.granted, 0, "grants end");
                let queues: BTreeSet<QueueId> = live.consumers.iter().map(|consumer| consumer.queue).collect();
                assert!(counts.waiting <= queues.len(), "no queue waits without a consumer: {counts:?}");
                if counts.lent >= counts.limit {
                    continue;
                }
                assert_eq!(counts.waiting, 0, "no queue waits for a free permit: {counts:?}");
            }
            for consumer in &live.consumers {
                let queue = &self.world.queues[&consumer.queue].state;
                let is_held = |delivery: &LentDelivery| delivery.queue == consumer.queue;
                let holds = live.unacked.iter().chain(live.held_back.iter().map(|(held, _)| held)).any(is_held);
                // The consumer's own prefetch may hold it back while it has unacknowledged messages.
                let may_take = !(consumer.has_prefetch && holds);
                assert!(
                    queue.ready_count() == 0 || !may_take,
                    "{consumer:?} of {channel:?} does not get the ready messages"
                );
            }
        }
        let listed: BTreeSet<QueueId> = self.world.channels.values().flat_map(|live| live.attached.clone()).collect();
        self.world.queues.retain(|id, queue| !queue.state.has_ended() || listed.contains(id));
    }
}

#[test]
fn permits_used_are_deliveries_lent_in_any_order_of_events() {
    let steps = std::env::var(STEPS).map_or(STEPS_USUALLY, |steps| steps.parse().expect("it is a number"));
    let mut delivered = 0;
    for seed in 0..steps.div_ceil(STEPS_OF_A_WORLD) {
        let mut model = Model::new(seed);
        for step in 0..STEPS_OF_A_WORLD {
            model.step();
            model.check();
            if step % 50 == 49 {
                model.check_idle();
            }
        }
        model.check_idle();
        delivered += model.world.delivered;
    }
    assert!(delivered > steps / 20, "the histories deliver something: {delivered}");
}
