//! The reply codes of AMQP 0-9-1 (specification 1.3.2), with the names that prefix every reply text.

/// A reply code as `channel.close`, `connection.close` and `basic.return` carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum ReplyCode {
    /// 200: a client closes in good order.
    ReplySuccess = 200,
    /// 312: `basic.return` of an unroutable mandatory message.
    NoRoute = 312,
    /// 320: the broker or an operator closes the connection.
    ConnectionForced = 320,
    /// 403: not permitted.
    AccessRefused = 403,
    /// 404: no such queue or exchange.
    NotFound = 404,
    /// 405: another connection's exclusive queue.
    ResourceLocked = 405,
    /// 406: a condition that the client named does not hold.
    PreconditionFailed = 406,
    /// 501: a malformed frame or an undecodable method.
    FrameError = 501,
    /// 502: a malformed field.
    SyntaxError = 502,
    /// 503: a method that a client may not send, or not now.
    CommandInvalid = 503,
    /// 504: the channel is not open, or opened twice.
    ChannelError = 504,
    /// 505: a frame out of sequence.
    UnexpectedFrame = 505,
    /// 506: the broker lacks a resource.
    ResourceError = 506,
    /// 530: the connection may not do this.
    NotAllowed = 530,
    /// 540: not implemented.
    NotImplemented = 540,
    /// 541: a fault of the broker.
    InternalError = 541,
}

impl ReplyCode {
    /// The codes of closes that report an error.
    pub const ERRORS: [Self; 14] = [
        Self::ConnectionForced,
        Self::AccessRefused,
        Self::NotFound,
        Self::ResourceLocked,
        Self::PreconditionFailed,
        Self::FrameError,
        Self::SyntaxError,
        Self::CommandInvalid,
        Self::ChannelError,
        Self::UnexpectedFrame,
        Self::ResourceError,
        Self::NotAllowed,
        Self::NotImplemented,
        Self::InternalError,
    ];

    /// The number on the wire.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The name that prefixes the reply text.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReplySuccess => "OK",
            Self::NoRoute => "NO_ROUTE",
            Self::ConnectionForced => "CONNECTION_FORCED",
            Self::AccessRefused => "ACCESS_REFUSED",
            Self::NotFound => "NOT_FOUND",
            Self::ResourceLocked => "RESOURCE_LOCKED",
            Self::PreconditionFailed => "PRECONDITION_FAILED",
            Self::FrameError => "FRAME_ERROR",
            Self::SyntaxError => "SYNTAX_ERROR",
            Self::CommandInvalid => "COMMAND_INVALID",
            Self::ChannelError => "CHANNEL_ERROR",
            Self::UnexpectedFrame => "UNEXPECTED_FRAME",
            Self::ResourceError => "RESOURCE_ERROR",
            Self::NotAllowed => "NOT_ALLOWED",
            Self::NotImplemented => "NOT_IMPLEMENTED",
            Self::InternalError => "INTERNAL_ERROR",
        }
    }
}
