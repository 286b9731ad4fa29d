//! Checks a queue's arguments as RabbitMQ's classic queues do, compares them, and turns them into settings.

use crate::model::arguments::{equivalent, keys, long_string, printed};
use crate::model::names::queue_in_vhost;
use crate::model::{AmqpError, Arguments, Name, QueueId};
use crate::queue::{Overflow, QueueSettings};
use crate::wire::table::Value;
use std::time::Duration;

/// The longest time to live, in milliseconds: ten years, as in RabbitMQ.
const MILLIS_MAX: i64 = 315_360_000_000;
const PRIORITY_MAX: i64 = 255;

/// Arguments that a classic queue knows. They are compared when the queue is declared again.
const KNOWN: [&str; 13] = [
    keys::QUEUE_TYPE,
    keys::EXPIRES,
    keys::MESSAGE_TTL,
    keys::DEAD_LETTER_EXCHANGE,
    keys::DEAD_LETTER_ROUTING_KEY,
    keys::MAX_LENGTH,
    keys::MAX_LENGTH_BYTES,
    keys::MAX_PRIORITY,
    keys::OVERFLOW,
    keys::QUEUE_MODE,
    keys::QUEUE_VERSION,
    keys::QUEUE_LEADER_LOCATOR,
    keys::QUEUE_MASTER_LOCATOR,
];

/// Arguments of RabbitMQ that this broker does not support. They are refused, not ignored.
const REFUSED: [&str; 11] = [
    "x-single-active-consumer",
    "x-consumer-timeout",
    "x-delivery-limit",
    "x-dead-letter-strategy",
    "x-quorum-initial-group-size",
    "x-max-in-memory-length",
    "x-max-in-memory-bytes",
    "x-max-age",
    "x-stream-max-segment-size-bytes",
    "x-stream-filter-size-bytes",
    "x-initial-cluster-size",
];

/// A declaration of a queue, without its arguments.
#[derive(Clone, Debug)]
pub(super) struct QueueDeclaration {
    pub(super) id: QueueId,
    pub(super) name: Name,
    pub(super) vhost: Name,
    pub(super) durable: bool,
    pub(super) auto_delete: bool,
}

/// The settings of a queue declared with these arguments.
pub(super) fn settings(declared: QueueDeclaration, arguments: &Arguments) -> Result<QueueSettings, AmqpError> {
    let QueueDeclaration { id, name, vhost, durable, auto_delete } = declared;
    let check = ArgumentCheck { arguments, at: queue_in_vhost(name.as_str(), vhost.as_str()) };
    let dead_letter_exchange = check.dead_letter_exchange()?;
    check.refused()?;
    check.choice(keys::QUEUE_TYPE, &["classic"], "queue type")?;
    let expires = check.millis(keys::EXPIRES, 1)?.map(Duration::from_millis);
    let message_ttl_ms = check.millis(keys::MESSAGE_TTL, 0)?;
    let dead_letter_routing_key = check.text(keys::DEAD_LETTER_ROUTING_KEY)?.map(Name::from);
    if dead_letter_routing_key.is_some() && dead_letter_exchange.is_none() {
        return Err(check.invalid(keys::DEAD_LETTER_ROUTING_KEY, "routing_key_but_no_dlx_defined"));
    }
    let length_max = check.count(keys::MAX_LENGTH)?;
    let length_bytes_max = check.count(keys::MAX_LENGTH_BYTES)?;
    let priority_max = check.priority_max()?;
    let overflow = check.overflow()?;
    check.choice(keys::QUEUE_MODE, &["default", "lazy"], "queue mode")?;
    check.queue_version()?;
    check.locator(keys::QUEUE_LEADER_LOCATOR)?;
    Ok(QueueSettings {
        id,
        name,
        vhost,
        durable,
        auto_delete,
        priority_max,
        message_ttl_ms,
        expires,
        length_max,
        length_bytes_max,
        overflow,
        dead_letter_exchange,
        dead_letter_routing_key,
    })
}

struct ArgumentCheck<'a> {
    arguments: &'a Arguments,
    at: String,
}

impl ArgumentCheck<'_> {
    fn invalid(&self, key: &str, reason: &str) -> AmqpError {
        AmqpError::precondition_failed(format!("invalid arg '{key}' for {}: {reason}", self.at))
    }

    fn refused(&self) -> Result<(), AmqpError> {
        match REFUSED.into_iter().find(|key| self.arguments.get(key).is_some()) {
            Some(key) => Err(AmqpError::precondition_failed(format!(
                "invalid arg '{key}' for {} of queue type rabbit_classic_queue",
                self.at
            ))),
            None => Ok(()),
        }
    }

    fn whole(&self, key: &str) -> Result<Option<i64>, AmqpError> {
        let Some(value) = self.arguments.get(key) else { return Ok(None) };
        match value.as_integer() {
            Some(number) => Ok(Some(number)),
            None => Err(self.invalid(key, &format!("\"expected integer, got {}\"", value.type_name()))),
        }
    }

    fn count(&self, key: &str) -> Result<Option<u64>, AmqpError> {
        match self.whole(key)? {
            Some(number) if number < 0 => Err(self.invalid(key, &format!("{{value_negative,{number}}}"))),
            number => Ok(number.map(i64::unsigned_abs)),
        }
    }

    fn millis(&self, key: &str, least: i64) -> Result<Option<u64>, AmqpError> {
        match self.whole(key)? {
            Some(0) if least > 0 => Err(self.invalid(key, "{value_zero,0}")),
            Some(number) if number > MILLIS_MAX => Err(self.invalid(key, &format!("{{value_too_large,{number}}}"))),
            _ => self.count(key),
        }
    }

    fn text(&self, key: &str) -> Result<Option<String>, AmqpError> {
        let Some(value) = self.arguments.get(key) else { return Ok(None) };
        match long_string(value) {
            Some(text) => Ok(Some(String::from_utf8_lossy(text).into_owned())),
            None => Err(self.invalid(key, &format!("{{unacceptable_type,{}}}", value.type_name()))),
        }
    }

    /// RabbitMQ checks this argument before all others, and its error has a different text.
    fn dead_letter_exchange(&self) -> Result<Option<Name>, AmqpError> {
        let key = keys::DEAD_LETTER_EXCHANGE;
        match self.arguments.get(key) {
            None => Ok(None),
            Some(Value::LongString(text)) => Ok(Some(Name::from(String::from_utf8_lossy(text).as_ref()))),
            Some(other) => {
                let text = format!("invalid type '{}' for arg '{key}' in {}", other.type_name(), self.at);
                Err(AmqpError::precondition_failed(text))
            }
        }
    }

    fn choice(&self, key: &str, allowed: &[&str], what: &str) -> Result<(), AmqpError> {
        match self.text(key)? {
            Some(text) if key == keys::QUEUE_TYPE && text == "undefined" => Ok(()),
            Some(text) if !allowed.contains(&text.as_str()) => {
                Err(self.invalid(key, &format!("\"unsupported {what} '{text}'\"")))
            }
            _ => Ok(()),
        }
    }

    fn priority_max(&self) -> Result<u8, AmqpError> {
        let key = keys::MAX_PRIORITY;
        match self.count(key)? {
            None => Ok(0),
            Some(number) if number > PRIORITY_MAX.unsigned_abs() => {
                Err(self.invalid(key, &format!("{{max_value_exceeded,{number}}}")))
            }
            Some(number) => Ok(u8::try_from(number.max(1)).expect("at most 255")),
        }
    }

    fn overflow(&self) -> Result<Overflow, AmqpError> {
        match self.text(keys::OVERFLOW)?.as_deref() {
            None | Some("drop-head") => Ok(Overflow::DropHead),
            Some("reject-publish") => Ok(Overflow::RejectPublish),
            Some("reject-publish-dlx") => Ok(Overflow::RejectPublishDeadLetter),
            Some(_) => Err(self.invalid(keys::OVERFLOW, "invalid_overflow")),
        }
    }

    fn queue_version(&self) -> Result<(), AmqpError> {
        match self.whole(keys::QUEUE_VERSION)? {
            Some(number) if number != 1 && number != 2 => {
                Err(self.invalid(keys::QUEUE_VERSION, &format!("\"unsupported queue version '{number}'\"")))
            }
            _ => Ok(()),
        }
    }

    fn locator(&self, key: &str) -> Result<(), AmqpError> {
        let allowed = ["client-local", "balanced", "random", "least-leaders"];
        match self.text(key)? {
            Some(text) if !allowed.contains(&text.as_str()) => Err(self.invalid(key, "invalid_queue_locator_arg")),
            _ => Ok(()),
        }
    }
}

/// Checks that two declarations of a queue have equivalent known arguments.
pub(super) fn check_equivalent(received: &Arguments, current: &Arguments, at: &str) -> Result<(), AmqpError> {
    for key in KNOWN {
        if key == keys::QUEUE_TYPE && is_classic(received) && is_classic(current) {
            continue;
        }
        check_equivalent_argument(key, received, current, at)?;
    }
    Ok(())
}

fn is_classic(arguments: &Arguments) -> bool {
    match arguments.get(keys::QUEUE_TYPE) {
        None => true,
        Some(value) => matches!(long_string(value), Some(b"classic" | b"undefined")),
    }
}

/// Checks that one argument is equivalent in both declarations.
pub(super) fn check_equivalent_argument(
    key: &str,
    received: &Arguments,
    current: &Arguments,
    at: &str,
) -> Result<(), AmqpError> {
    let described = |value: Value<'_>| format!("the value '{}' of type '{}'", printed(value), value.type_name());
    // When it compares with another value, RabbitMQ prints a void argument like a missing one.
    let quoted = |value| if value == Value::Void { "none".to_owned() } else { format!("'{}'", printed(value)) };
    let (received, current) = match (received.get(key), current.get(key)) {
        (None, None) => return Ok(()),
        (Some(received), Some(current)) if equivalent(received, current) => return Ok(()),
        (Some(received), Some(current)) => (quoted(received), quoted(current)),
        (None, Some(current)) => ("none".to_owned(), described(current)),
        (Some(received), None) => (described(received), "none".to_owned()),
    };
    let text = format!("inequivalent arg '{key}' for {at}: received {received} but current is {current}");
    Err(AmqpError::precondition_failed(text))
}
