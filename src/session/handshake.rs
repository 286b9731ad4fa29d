//! From the protocol header to an open vhost.

use super::client::{Login, LoginRefusal};
use super::effect::{Effect, Output};
use super::ending::{Ending, ErrorOrigin};
use super::machine::Session;
use super::method_ids::{CONNECTION_OPEN, CONNECTION_START, CONNECTION_START_OK, CONNECTION_TUNE};
use super::state::{Handshake, State};
use crate::model::{AmqpError, Name, NamedLimit, Now};
use crate::wire::frame::payload_max;
use crate::wire::method::{ClientMethod, WithTable};
use crate::wire::protocol_header::{self, ProtocolHeader};
use crate::wire::table::{Value, write_table};
use crate::wire::writer::write_fields;
use amq_protocol::protocol::connection::{self, AMQPMethod};
use std::time::Duration;

const PROTOCOL_HEADER_BYTES: usize = 8;

/// The capabilities in `server-properties`; clients switch features on by these names.
const CAPABILITIES: [&str; 8] = [
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
];

impl Session {
    /// Takes the protocol header. Returns how many bytes were used; none until eight bytes have come.
    pub(super) fn receive_header(&mut self, input: &[u8], now: Now, out: &mut Output) -> Option<usize> {
        match protocol_header::recognise(input) {
            ProtocolHeader::Incomplete => None,
            ProtocolHeader::Refused => {
                out.bytes.extend_from_slice(&protocol_header::ANSWER);
                self.close_silently("another protocol", now);
                self.close_socket(out);
                Some(input.len())
            }
            ProtocolHeader::Accepted => {
                self.state = State::Handshake(Handshake::Starting);
                self.write_start(out);
                Some(PROTOCOL_HEADER_BYTES)
            }
        }
    }

    /// Writes connection.start field by field: clients see the properties in RabbitMQ's order.
    fn write_start(&self, out: &mut Output) {
        let properties = &self.settings.properties;
        let texts = [
            ("cluster_name", properties.cluster_name.as_str()),
            ("copyright", "Copyright (c) the ProntoMQ developers; MIT OR Apache-2.0"),
            ("information", &properties.information),
            ("platform", &properties.platform),
            ("product", &properties.product),
            ("version", &properties.version),
        ];
        write_fields(&mut out.bytes, 0, CONNECTION_START, |fields| {
            fields.extend_from_slice(&[0, 9]);
            write_table(fields, |table| {
                table.table(b"capabilities", |capabilities| {
                    CAPABILITIES.iter().for_each(|name| capabilities.value(name.as_bytes(), Value::Bool(true)));
                });
                for (key, text) in texts {
                    table.value(key.as_bytes(), Value::LongString(text.as_bytes()));
                }
            });
            for text in [self.settings.mechanisms.join(" ").as_str(), "en_US"] {
                fields.extend_from_slice(&(text.len() as u32).to_be_bytes());
                fields.extend_from_slice(text.as_bytes());
            }
        });
    }

    pub(super) fn handshake_method(&mut self, method: ClientMethod<'_>, now: Now, out: &mut Output) {
        let State::Handshake(stage) = &self.state else { unreachable!("callers checked the state") };
        match (stage, method) {
            (Handshake::Starting, ClientMethod::ConnectionStartOk(start)) => self.connection_start_ok(&start, now, out),
            (Handshake::Tuning, ClientMethod::ConnectionTuneOk(tune)) => self.connection_tune_ok(&tune, now, out),
            (Handshake::Opening, ClientMethod::ConnectionOpen(open)) => {
                let vhost = Name::from(open.virtual_host.as_str());
                self.state = State::Handshake(Handshake::OpeningVhost(vhost.clone()));
                out.effects.push(Effect::OpenVhost { vhost });
                out.pause = true;
            }
            (Handshake::Opening | Handshake::Tuning, ClientMethod::ConnectionClose(close)) => {
                self.ending = Some(Ending::ByClient(close.reply_code, close.reply_text.to_string()));
                out.write_connection(AMQPMethod::CloseOk(connection::CloseOk {}));
                self.close_socket(out);
            }
            _ => self.close_silently("a method out of turn during the handshake", now),
        }
    }

    fn connection_start_ok(&mut self, start: &WithTable<'_, connection::StartOk>, now: Now, out: &mut Output) {
        let WithTable { method: start, table: client_properties } = start;
        let text = |key: &str| match client_properties.get(key.as_bytes()) {
            Some(Value::LongString(text)) => String::from_utf8_lossy(text).into_owned(),
            _ => String::new(),
        };
        let capability = |name: &str| match client_properties.get(b"capabilities") {
            Some(Value::Table(table)) => table.get(name.as_bytes()) == Some(Value::Bool(true)),
            _ => false,
        };
        self.client.name = text("connection_name");
        self.client.product = text("product");
        self.client.wants_failure_close = capability("authentication_failure_close");
        self.client.wants_cancel_notify = capability("consumer_cancel_notify");
        self.client.wants_blocked = capability("connection.blocked");
        let mechanism = start.mechanism.to_string();
        if !self.settings.mechanisms.contains(&mechanism) {
            return self.close_silently("an authentication mechanism that was not offered", now);
        }
        self.state = State::Handshake(Handshake::Authenticating(mechanism.clone()));
        out.effects.push(Effect::Authenticate { mechanism, response: start.response.as_bytes().to_vec() });
        out.pause = true;
    }

    /// The shell has checked the login.
    pub(crate) fn authenticated(&mut self, login: Result<Login, LoginRefusal>, now: Now, out: &mut Output) {
        let State::Handshake(Handshake::Authenticating(mechanism)) = &self.state else { return };
        match login {
            Ok(login) => {
                self.client.user = Some(login.user);
                self.client.may_impersonate = login.may_impersonate;
                self.state = State::Handshake(Handshake::Tuning);
                let tune = connection::Tune {
                    channel_max: self.settings.channel_max,
                    frame_max: self.settings.frame_max,
                    heartbeat: self.settings.heartbeat_seconds,
                };
                out.write_connection(AMQPMethod::Tune(tune));
            }
            Err(LoginRefusal::Refused) if self.client.wants_failure_close => {
                let error = AmqpError::login_refused(mechanism);
                self.close_at(ErrorOrigin::on_channel(0, Some(CONNECTION_START_OK)), &error, None, now, out);
                self.shorten_closing(now);
            }
            Err(_) => self.close_silently("login refused", now),
        }
    }

    fn connection_tune_ok(&mut self, tune: &connection::TuneOk, now: Now, out: &mut Output) {
        if let Err(error) = self.check_tuning(tune, out) {
            return self.close(&error, Some(CONNECTION_TUNE), now, out);
        }
        self.tuning.payload_max = payload_max(tune.frame_max);
        self.tuning.channel_max = tune.channel_max;
        self.timers.begin_heartbeats(now.monotonic, Duration::from_secs(tune.heartbeat.into()));
        self.state = State::Handshake(Handshake::Opening);
    }

    fn check_tuning(&self, tune: &connection::TuneOk, out: &mut Output) -> Result<(), AmqpError> {
        let (least, most) = (self.settings.frame_min, self.settings.frame_max);
        if tune.frame_max > 0 && tune.frame_max < least {
            return Err(AmqpError::not_allowed(format!(
                "negotiated frame_max = {} is lower than the minimum allowed value ({least})",
                tune.frame_max
            )));
        }
        if most > 0 && (tune.frame_max == 0 || tune.frame_max > most) {
            out.refusals.note(NamedLimit::FrameMax);
            return Err(AmqpError::not_allowed(format!(
                "negotiated frame_max = {} is higher than the maximum allowed value ({most})",
                tune.frame_max
            )));
        }
        let most = self.settings.channel_max;
        if most > 0 && (tune.channel_max == 0 || tune.channel_max > most) {
            out.refusals.note(NamedLimit::ChannelsMax);
            let requested =
                if tune.channel_max == 0 { "0 (no limit)".to_owned() } else { tune.channel_max.to_string() };
            return Err(AmqpError::not_allowed(format!(
                "negotiated channel_max = {requested} is higher than the maximum allowed value ({most})"
            )));
        }
        Ok(())
    }

    /// The shell has opened the vhost, or the vhost cannot be opened for this reason.
    pub(crate) fn vhost_opened(&mut self, opened: Result<(), AmqpError>, now: Now, out: &mut Output) {
        let State::Handshake(Handshake::OpeningVhost(vhost)) = &self.state else { return };
        match opened {
            Ok(()) => {
                self.client.vhost = Some(vhost.clone());
                self.state = State::Running;
                out.write_connection(AMQPMethod::OpenOk(connection::OpenOk {}));
            }
            Err(error) => self.close(&error, Some(CONNECTION_OPEN), now, out),
        }
    }
}
