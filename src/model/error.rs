//! Errors that are reported to a client: each has its code, scope and text from the start.
//!
//! The session adds the class and method that failed when it writes the close.

use super::names::{exchange_in_vhost, queue_in_vhost};
use super::reply_code::ReplyCode;

/// What an error ends: the channel (a soft error) or the whole connection (a hard one).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// `channel.close`.
    Channel,
    /// `connection.close`.
    Connection,
}

/// An error that is reported to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AmqpError {
    /// The reply code.
    pub code: ReplyCode,
    /// Whether it ends the channel or the connection.
    pub scope: Scope,
    /// The explanation, without the code's name.
    pub text: String,
}

impl AmqpError {
    fn channel(code: ReplyCode, text: impl Into<String>) -> Self {
        Self { code, scope: Scope::Channel, text: text.into() }
    }

    fn connection(code: ReplyCode, text: impl Into<String>) -> Self {
        Self { code, scope: Scope::Connection, text: text.into() }
    }

    /// 403 on the channel.
    pub fn access_refused(text: impl Into<String>) -> Self {
        Self::channel(ReplyCode::AccessRefused, text)
    }

    /// 404 on the channel.
    pub fn not_found(text: impl Into<String>) -> Self {
        Self::channel(ReplyCode::NotFound, text)
    }

    /// 404: `no queue 'NAME' in vhost 'VHOST'`.
    pub fn no_queue(queue: &str, vhost: &str) -> Self {
        Self::not_found(format!("no {}", queue_in_vhost(queue, vhost)))
    }

    /// 404: `no exchange 'NAME' in vhost 'VHOST'`.
    pub fn no_exchange(exchange: &str, vhost: &str) -> Self {
        Self::not_found(format!("no {}", exchange_in_vhost(exchange, vhost)))
    }

    /// 405 on the channel.
    pub fn resource_locked(text: impl Into<String>) -> Self {
        Self::channel(ReplyCode::ResourceLocked, text)
    }

    /// 405: the queue is exclusive to another connection, or is not exclusive although the client says so.
    pub fn exclusive_queue(queue: &str, vhost: &str) -> Self {
        Self::resource_locked(format!(
            "cannot obtain exclusive access to locked {}. It could be originally declared on another connection or the \
             exclusive property value does not match that of the original declaration.",
            queue_in_vhost(queue, vhost)
        ))
    }

    /// 406 on the channel.
    pub fn precondition_failed(text: impl Into<String>) -> Self {
        Self::channel(ReplyCode::PreconditionFailed, text)
    }

    /// 320 on the connection.
    pub fn connection_forced(text: impl Into<String>) -> Self {
        Self::connection(ReplyCode::ConnectionForced, text)
    }

    /// 403 on the connection: a refused login.
    pub fn login_refused(mechanism: &str) -> Self {
        Self::connection(
            ReplyCode::AccessRefused,
            format!(
                "Login was refused using authentication mechanism {mechanism}. For details see the broker logfile."
            ),
        )
    }

    /// 501 on the connection.
    pub fn frame_error(text: impl Into<String>) -> Self {
        Self::connection(ReplyCode::FrameError, text)
    }

    /// 503 on the connection.
    pub fn command_invalid(text: impl Into<String>) -> Self {
        Self::connection(ReplyCode::CommandInvalid, text)
    }

    /// 504 on the connection.
    pub fn channel_error(text: impl Into<String>) -> Self {
        Self::connection(ReplyCode::ChannelError, text)
    }

    /// 505 on the connection.
    pub fn unexpected_frame(text: impl Into<String>) -> Self {
        Self::connection(ReplyCode::UnexpectedFrame, text)
    }

    /// 506 on the connection.
    pub fn resource_error(text: impl Into<String>) -> Self {
        Self::connection(ReplyCode::ResourceError, text)
    }

    /// 506 on the channel: it exceeds a limit, and is closed with everything it holds.
    pub fn limit_reached(text: impl Into<String>) -> Self {
        Self::channel(ReplyCode::ResourceError, text)
    }

    /// 530 on the connection.
    pub fn not_allowed(text: impl Into<String>) -> Self {
        Self::connection(ReplyCode::NotAllowed, text)
    }

    /// 540 on the connection.
    pub fn not_implemented(text: impl Into<String>) -> Self {
        Self::connection(ReplyCode::NotImplemented, text)
    }

    /// 541 on the connection, without an explanation.
    pub fn internal_error() -> Self {
        Self::connection(ReplyCode::InternalError, "")
    }

    /// The reply text as sent: `NAME - explanation`, or the bare name when there is none.
    pub fn reply_text(&self) -> String {
        if self.text.is_empty() { self.code.name().to_owned() } else { format!("{} - {}", self.code.name(), self.text) }
    }
}
