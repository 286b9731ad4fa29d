//! What a session knows of its client: the login, the client's properties, what both agreed upon in tune-ok.

use crate::model::Name;

/// What a session knows of its client.
#[derive(Debug, Default)]
pub(super) struct Client {
    /// The user, once logged in.
    pub(super) user: Option<Name>,
    /// The vhost, once open.
    pub(super) vhost: Option<Name>,
    /// Whether the user may publish under the `user-id` of others.
    pub(super) may_impersonate: bool,
    /// The client property `connection_name`.
    pub(super) name: String,
    /// The client property `product`.
    pub(super) product: String,
    /// Capability `authentication_failure_close`.
    pub(super) wants_failure_close: bool,
    /// Capability `consumer_cancel_notify`.
    pub(super) wants_cancel_notify: bool,
    /// Capability `connection.blocked`.
    pub(super) wants_blocked: bool,
}

/// What client and broker agreed upon in tune-ok.
#[derive(Debug)]
pub(super) struct Tuning {
    /// Largest payload of a frame, in bytes.
    pub(super) payload_max: usize,
    /// Most open channels; 0 is no limit.
    pub(super) channel_max: u16,
}

/// A successful login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Login {
    /// The user's name.
    pub user: Name,
    /// Whether the user may publish under the `user-id` of others.
    pub may_impersonate: bool,
}

/// Why a login failed, as far as the client may know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoginRefusal {
    /// The response was not well-formed: the socket is closed and nothing is sent.
    Malformed,
    /// Wrong user, password or address.
    Refused,
}
