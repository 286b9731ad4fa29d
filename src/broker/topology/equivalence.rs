//! Checks whether a declaration matches the existing exchange or queue.

use super::exchanges::ExchangeEntry;
use super::queues::QueueEntry;
use crate::broker::queue_arguments;
use crate::model::AmqpError;
use crate::model::arguments::keys;
use crate::model::command::{ExchangeDeclare, QueueDeclare};
use crate::model::names::exchange_in_vhost;
use crate::routing::ExchangeKind;

impl ExchangeEntry {
    pub(super) fn check_equivalent(
        &self,
        declare: &ExchangeDeclare,
        kind: ExchangeKind,
        vhost: &str,
    ) -> Result<(), AmqpError> {
        let at = || exchange_in_vhost(declare.exchange.as_str(), vhost);
        let differs = |arg: &str, received: String, current: String| {
            let text = format!("inequivalent arg '{arg}' for {}: received {received} but current is {current}", at());
            Err(AmqpError::precondition_failed(text))
        };
        let known = self.exchange.bindings.kind();
        if kind != known {
            return differs("type", format!("'{}'", kind.name()), format!("'{}'", known.name()));
        }
        let flags = [
            ("durable", declare.durable, self.durable),
            ("auto_delete", declare.auto_delete, self.auto_delete),
            ("internal", declare.internal, self.internal),
        ];
        for (arg, received, current) in flags {
            if received != current {
                return differs(arg, format!("'{received}'"), format!("'{current}'"));
            }
        }
        if self.predeclared {
            return Ok(());
        }
        let name = declare.exchange.as_str();
        queue_arguments::check_equivalent_argument(
            keys::ALTERNATE_EXCHANGE,
            &declare.arguments,
            &self.arguments,
            &exchange_in_vhost(name, vhost),
        )
    }
}

impl QueueEntry {
    /// Checks that a declaration of this queue matches the queue.
    pub(in crate::broker) fn check_equivalent(&self, declare: &QueueDeclare, vhost: &str) -> Result<(), AmqpError> {
        let name = declare.queue.as_str();
        if declare.exclusive != self.cell.owner().is_some() {
            return Err(AmqpError::exclusive_queue(name, vhost));
        }
        let at = crate::model::names::queue_in_vhost(name, vhost);
        // An exclusive queue is never durable, even if its declaration asks for it.
        let flags = [
            ("durable", declare.durable && !declare.exclusive, self.durable),
            ("auto_delete", declare.auto_delete, self.auto_delete),
        ];
        for (arg, received, current) in flags {
            if received != current {
                let text =
                    format!("inequivalent arg '{arg}' for {at}: received '{received}' but current is '{current}'");
                return Err(AmqpError::precondition_failed(text));
            }
        }
        queue_arguments::check_equivalent(&declare.arguments, &self.arguments, &at)
    }
}
