//! Durable topology.

use super::{StoreLocation, batch, commit, inserts, lane, open, reopened};
use crate::model::{Name, QueueId};
use crate::store::{
    Batch, BindingRecord, Destination, ExchangeRecord, QueueRecord, TopologyChange, UserRecord, VhostRecord,
};

fn queue(id: u64, name: &str) -> QueueRecord {
    QueueRecord {
        vhost: Name::from("/"),
        name: Name::from(name),
        id: QueueId(id),
        auto_delete: id.is_multiple_of(2),
        arguments: vec![0, 0, 0, 0],
    }
}

fn exchange(name: &str) -> ExchangeRecord {
    ExchangeRecord {
        vhost: Name::from("/"),
        name: Name::from(name),
        kind: "topic".into(),
        auto_delete: true,
        internal: false,
        arguments: vec![0, 0, 0, 4, 1, b'a', b't', 1],
    }
}

fn binding(key: &str, arguments: &[u8]) -> BindingRecord {
    BindingRecord {
        vhost: Name::from("/"),
        source: Name::from("logs"),
        destination_kind: Destination::Queue,
        destination: Name::from("q"),
        routing_key: Name::from(key),
        arguments: arguments.to_vec(),
    }
}

fn user(tags: &[&str], vhosts: &[&str]) -> UserRecord {
    UserRecord {
        name: Name::from("guest"),
        password_hash: "c2FsdGhhc2g=".into(),
        hashing_algorithm: "rabbit_password_hashing_sha256".into(),
        tags: tags.iter().map(ToString::to_string).collect(),
        from_settings: tags.len() > 1,
        vhosts: vhosts.iter().map(|name| Name::from(*name)).collect(),
    }
}

pub(in crate::store) fn topology_comes_back_as_it_was_put(place: &dyn StoreLocation) {
    let (mut store, recovered) = open(place);
    assert!(recovered.vhosts.is_empty() && recovered.users.is_empty() && recovered.exchanges.is_empty());
    let odd = Name::from("quote ' \u{0} \u{1F430}");
    let odd_exchange = ExchangeRecord { name: odd.clone(), internal: true, auto_delete: false, ..exchange("") };
    let topology = vec![
        TopologyChange::PutVhost(VhostRecord { name: Name::from("/") }),
        TopologyChange::PutVhost(VhostRecord { name: odd.clone() }),
        TopologyChange::PutUser(user(&["monitoring"], &["/"])),
        TopologyChange::PutUser(user(&["b", "a"], &["/", odd.as_str()])),
        TopologyChange::PutExchange(ExchangeRecord { kind: "direct".into(), ..exchange("logs") }),
        TopologyChange::PutExchange(exchange("logs")),
        TopologyChange::PutExchange(odd_exchange.clone()),
        TopologyChange::PutQueue(queue(1, "q")),
        TopologyChange::PutQueue(queue(u64::MAX, "last")),
    ];
    commit(store.as_mut(), &Batch { topology, ..batch(1) });
    let (_, mut recovered) = reopened(store, place);
    let sorted = |mut names: Vec<Name>| {
        names.sort();
        names
    };
    let vhosts = recovered.vhosts.into_iter().map(|vhost| vhost.name).collect();
    assert_eq!(sorted(vhosts), sorted(vec![Name::from("/"), odd.clone()]));
    assert_eq!(recovered.users, [user(&["b", "a"], &["/", odd.as_str()])]);
    recovered.exchanges.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(recovered.exchanges, [exchange("logs"), odd_exchange]);
    recovered.queues.sort_by_key(|queue| queue.id);
    assert_eq!(recovered.queues, [queue(1, "q"), queue(u64::MAX, "last")]);
}

pub(in crate::store) fn bindings_are_told_apart_by_their_arguments(place: &dyn StoreLocation) {
    let (mut store, _) = open(place);
    let to_exchange = BindingRecord { destination_kind: Destination::Exchange, ..binding("a.*", &[0]) };
    let all = [binding("a.*", &[0]), binding("a.*", &[1]), binding("b", &[0]), to_exchange];
    let mut topology: Vec<_> = all.iter().cloned().map(TopologyChange::PutBinding).collect();
    topology.push(TopologyChange::PutBinding(all[0].clone()));
    commit(store.as_mut(), &Batch { topology, ..batch(1) });
    let deletes = [binding("a.*", &[1]), binding("a.*", &[2])];
    let topology = deletes.into_iter().map(TopologyChange::DeleteBinding).collect();
    commit(store.as_mut(), &Batch { topology, ..batch(2) });
    let (_, recovered) = reopened(store, place);
    assert_eq!(recovered.bindings.len(), 3);
    for kept in [&all[0], &all[2], &all[3]] {
        assert!(recovered.bindings.contains(kept), "{kept:?}");
    }
}

pub(in crate::store) fn deleted_topology_is_gone(place: &dyn StoreLocation) {
    let (mut store, _) = open(place);
    let topology = vec![
        TopologyChange::PutVhost(VhostRecord { name: Name::from("/") }),
        TopologyChange::PutUser(user(&["administrator"], &["/"])),
        TopologyChange::PutExchange(exchange("logs")),
        TopologyChange::PutExchange(exchange("kept")),
        TopologyChange::PutQueue(queue(1, "q")),
    ];
    commit(store.as_mut(), &Batch { topology, lanes: vec![inserts(lane(1), [1])], ..batch(1) });
    let topology = vec![
        TopologyChange::DeleteVhost(Name::from("/")),
        TopologyChange::DeleteUser(Name::from("guest")),
        TopologyChange::DeleteExchange { vhost: Name::from("/"), name: Name::from("logs") },
        TopologyChange::DeleteExchange { vhost: Name::from("other"), name: Name::from("kept") },
        TopologyChange::DeleteQueue(QueueId(1)),
        TopologyChange::PutQueue(queue(2, "q")),
    ];
    commit(store.as_mut(), &Batch { topology, ..batch(2) });
    let (_, recovered) = reopened(store, place);
    assert_eq!((recovered.vhosts, recovered.users), (vec![], vec![]));
    assert_eq!(recovered.exchanges, [exchange("kept")]);
    assert_eq!(recovered.queues, [queue(2, "q")]);
    assert_eq!(recovered.lanes, []);
}
