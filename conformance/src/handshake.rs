//! The usual handshake, and how a dialogue's `connect` line deviates from it.

use crate::expression::{Expression, Scope};
use crate::value::Value;

/// What a client says between the protocol header and connection.open-ok.
#[derive(Debug)]
pub struct Handshake {
    user: Vec<u8>,
    password: Vec<u8>,
    vhost: Vec<u8>,
    capabilities: Value,
    channel_max: Value,
    frame_max: u32,
    heartbeat: Value,
}

/// One turn of the handshake: what the server says, and the answer.
#[derive(Debug)]
pub struct Turn {
    /// Method that must arrive.
    pub heard: &'static str,
    /// Method that answers it.
    pub said: &'static str,
    /// Its fields by name; the others are zero, empty or false.
    pub fields: Vec<(&'static str, Value)>,
}

impl Handshake {
    /// The usual values, except where `options` has others.
    pub fn new(options: &[(String, Expression)], scope: &Scope) -> Result<Self, String> {
        let option = |wanted: &str| {
            let found = options.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.evaluate(scope)).transpose()
        };
        let text = |name: &str| {
            let value = option(name)?.or_else(|| scope.variables.get(name).cloned());
            match value {
                Some(Value::Text(text)) => Ok(text),
                _ => Err(format!("{name} must be a string")),
            }
        };
        let number = |name: &str, usual| Ok::<_, String>(option(name)?.unwrap_or(Value::Number(usual)));
        let frame_max = match number("frame-max", 131_072)? {
            Value::Number(number) => u32::try_from(number).ok(),
            _ => None,
        };
        Ok(Self {
            user: text("user")?,
            password: text("password")?,
            vhost: text("vhost")?,
            capabilities: option("capabilities")?.unwrap_or_else(usual_capabilities),
            channel_max: number("channel-max", 2047)?,
            frame_max: frame_max.ok_or("frame-max must be a number of 32 bits")?,
            heartbeat: number("heartbeat", 0)?,
        })
    }

    /// The frame_max that both sides keep afterwards, in bytes.
    pub fn frame_max(&self) -> usize {
        self.frame_max as usize
    }

    /// The turns in order; connection.open-ok follows the last.
    pub fn turns(&self) -> [Turn; 2] {
        let response = [b"\0", &self.user[..], b"\0", &self.password[..]].concat();
        let tagged = |tag, value| Value::Tagged(tag, Box::new(value));
        let text = |text: &[u8]| Value::Text(text.to_vec());
        let properties = vec![
            (b"product".to_vec(), tagged(b'S', text(b"conformance"))),
            (b"capabilities".to_vec(), tagged(b'F', self.capabilities.clone())),
        ];
        [
            Turn {
                heard: "connection.start",
                said: "connection.start-ok",
                fields: vec![
                    ("client-properties", Value::Table(properties)),
                    ("mechanism", text(b"PLAIN")),
                    ("response", Value::Text(response)),
                    ("locale", text(b"en_US")),
                ],
            },
            Turn {
                heard: "connection.tune",
                said: "connection.tune-ok",
                fields: vec![
                    ("channel-max", self.channel_max.clone()),
                    ("frame-max", Value::Number(self.frame_max.into())),
                    ("heartbeat", self.heartbeat.clone()),
                ],
            },
        ]
    }

    /// The fields of connection.open, which follows tune-ok at once.
    pub fn open(&self) -> [(&'static str, Value); 1] {
        [("virtual-host", Value::Text(self.vhost.clone()))]
    }
}

fn usual_capabilities() -> Value {
    let names = [
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "authentication_failure_close",
    ];
    let granted = || Value::Tagged(b't', Box::new(Value::Flag(true)));
    let entry = |name: &str| (name.as_bytes().to_vec(), granted());
    Value::Table(names.into_iter().map(entry).collect())
}
