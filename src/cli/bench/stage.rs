//! The queues and the exchange of a run, on the broker.

use super::client::{Client, Target};
use super::publisher;
use super::scenario::{Load, Route};
use std::io;

/// Keys that the messages of a topic load bear, in turn.
const TOPICS: u32 = 1000;

/// Queues and exchange of a run, on the broker.
pub(super) struct Stage {
    pub(super) control: Client,
    pub(super) queues: Vec<String>,
    exchange: Option<String>,
    pub(super) addresses: Vec<Vec<u8>>,
}

impl Stage {
    pub(super) fn set(target: &Target, load: &Load) -> io::Result<Self> {
        let name = format!("bench-{}", std::process::id());
        let queues: Vec<String> = (0..load.queues).map(|number| format!("{name}-{number}")).collect();
        let mut control = Client::connect(target)?;
        for queue in &queues {
            control.declare(queue, load.persistent)?;
        }
        let kind = match load.route {
            Route::Queue => {
                let addresses = queues.iter().map(|queue| publisher::address("", queue)).collect();
                return Ok(Self { control, queues, exchange: None, addresses });
            }
            Route::Fanout => "fanout",
            Route::Topic { .. } => "topic",
        };
        control.declare_exchange(&name, kind)?;
        let addresses = match load.route {
            Route::Topic { bindings } => {
                for number in 0..bindings {
                    control.bind(&queues[0], &name, &format!("bench.{number}.*"))?;
                }
                let key = |number| publisher::address(&name, &format!("bench.{number}.key"));
                (0..bindings.min(TOPICS)).map(key).collect()
            }
            _ => {
                for queue in &queues {
                    control.bind(queue, &name, "")?;
                }
                vec![publisher::address(&name, "")]
            }
        };
        Ok(Self { control, queues, exchange: Some(name), addresses })
    }

    pub(super) fn strike(mut self) -> io::Result<()> {
        for queue in &self.queues {
            self.control.delete(queue)?;
        }
        self.exchange.iter().try_for_each(|exchange| self.control.delete_exchange(exchange))
    }
}
