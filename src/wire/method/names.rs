//! The AMQP names of the methods that a client sends.

use super::MethodId;

impl MethodId {
    /// The name of a client's method, such as `queue.declare`; empty for any other.
    #[must_use]
    pub fn name(self) -> &'static str {
        match (self.class_id, self.method_id) {
            (10, 11) => "connection.start-ok",
            (10, 21) => "connection.secure-ok",
            (10, 31) => "connection.tune-ok",
            // When an answer of the client is at fault, the close names the method that the broker sent.
            (10, 30) => "connection.tune",
            (10, 40) => "connection.open",
            (10, 50) => "connection.close",
            (10, 51) => "connection.close-ok",
            (10, 70) => "connection.update-secret",
            (20, 10) => "channel.open",
            (20, 20) => "channel.flow",
            (20, 21) => "channel.flow-ok",
            (20, 40) => "channel.close",
            (20, 41) => "channel.close-ok",
            (30, 10) => "access.request",
            (40, 10) => "exchange.declare",
            (40, 20) => "exchange.delete",
            (40, 30) => "exchange.bind",
            (40, 40) => "exchange.unbind",
            (50, 10) => "queue.declare",
            (50, 20) => "queue.bind",
            (50, 30) => "queue.purge",
            (50, 40) => "queue.delete",
            (50, 50) => "queue.unbind",
            (60, 10) => "basic.qos",
            (60, 20) => "basic.consume",
            (60, 30) => "basic.cancel",
            (60, 40) => "basic.publish",
            (60, 70) => "basic.get",
            (60, 80) => "basic.ack",
            (60, 90) => "basic.reject",
            (60, 100) => "basic.recover-async",
            (60, 110) => "basic.recover",
            (60, 120) => "basic.nack",
            (85, 10) => "confirm.select",
            (90, 10) => "tx.select",
            (90, 20) => "tx.commit",
            (90, 30) => "tx.rollback",
            _ => "",
        }
    }
}
