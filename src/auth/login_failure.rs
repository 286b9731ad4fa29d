//! The reasons for which a login fails.

/// Why a login failed. As in RabbitMQ, the two are answered differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LoginFailure {
    /// The response does not have the mechanism's format: the connection is closed silently.
    Malformed,
    /// The response is well-formed and refused: `connection.close` 403 for clients that understand it.
    Credentials {
        /// The user that the response names.
        user: String,
        /// The reason; for the log, never for the client.
        reason: &'static str,
    },
}
