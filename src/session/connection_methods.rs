//! The methods of class connection, once the handshake is over.

use super::effect::Output;
use super::ending::{Close, Ending};
use super::fault::Fault;
use super::machine::Session;
use super::state::State;
use crate::model::{AmqpError, Now};
use crate::wire::method::{ClientMethod, MethodError, MethodId};
use amq_protocol::protocol::connection;

impl Session {
    /// A method of class connection, in any state but after a close.
    pub(super) fn connection_method(&mut self, payload: &[u8], now: Now, out: &mut Output) {
        let id = MethodId::of(payload);
        let method = match ClientMethod::parse(payload) {
            Ok(method) => method,
            Err(_) if !self.is_running() => {
                return self.close_silently("an undecodable method during the handshake", now);
            }
            Err(MethodError::Malformed { .. } | MethodError::Table { .. }) => {
                return self.close(&AmqpError::internal_error(), None, now, out);
            }
            Err(error) => {
                let fault = Fault::of_method(&error);
                return self.close(&fault.error, fault.method, now, out);
            }
        };
        if let State::Handshake(_) = self.state {
            return self.handshake_method(method, now, out);
        }
        match method {
            ClientMethod::ConnectionClose(close) => {
                self.ending = Some(Ending::ByClient(close.reply_code, close.reply_text.to_string()));
                self.drain_then(Close::ByClient, now, out);
            }
            ClientMethod::ConnectionUpdateSecret(_) => {
                out.write_connection(connection::AMQPMethod::UpdateSecretOk(connection::UpdateSecretOk {}));
            }
            _ => {
                let error = AmqpError::channel_error("unexpected method in connection state running");
                self.close(&error, id, now, out);
            }
        }
    }
}
