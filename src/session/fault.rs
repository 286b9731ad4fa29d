//! What a handler of a frame fails with.

use super::method_ids::BASIC_PUBLISH;
use crate::model::AmqpError;
use crate::wire::method::{MethodError, MethodId};

/// An error, and the method that the close names as its cause, if any.
pub(super) struct Fault {
    pub(super) error: AmqpError,
    pub(super) method: Option<MethodId>,
}

impl Fault {
    /// An error that no method caused.
    pub(super) fn of(error: AmqpError) -> Self {
        Self { error, method: None }
    }

    /// An error within a content: its publish is named as the cause.
    pub(super) fn of_publish(error: AmqpError) -> Self {
        Self { error, method: Some(BASIC_PUBLISH) }
    }

    /// A method that cannot be parsed.
    pub(super) fn of_method(error: &MethodError) -> Self {
        let amqp = match error {
            MethodError::NoMethod | MethodError::Malformed { .. } | MethodError::NotUtf8(_) => {
                AmqpError::frame_error(error.to_string())
            }
            MethodError::Unknown(MethodId { class_id, method_id }) => {
                AmqpError::not_implemented(format!("method {class_id}.{method_id}"))
            }
            MethodError::Table { .. } => AmqpError::internal_error(),
        };
        let method = if matches!(error, MethodError::NotUtf8(_)) { None } else { error.method() };
        Self { error: amqp, method }
    }
}
