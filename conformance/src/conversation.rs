//! Carries a dialogue out: says its lines, holds what arrives against what it expects, and
//! cleans up behind it.

use crate::confirms::Confirms;
use crate::dialogue::{Action, Dialogue, Expected, Outgoing, Properties, Step};
use crate::expression::{Expression, Scope};
use crate::frame::{HEADER, Header, METHOD, encode_header, encode_method, write_frame};
use crate::handshake::Handshake;
use crate::link::{Arrival, Link, Said};
use crate::matching::is_expected;
use crate::spec::{self, Kind, Method};
use crate::transport::{Dialer, Transport as _};
use crate::value::{Value, quoted};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// How long something that is due at once may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(10);

/// Who logs in where, unless a dialogue says otherwise.
#[derive(Debug, Clone)]
pub struct Login {
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
    /// Virtual host.
    pub vhost: String,
}

/// Where a dialogue went another way than its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Line number in the chapter; 0 when it happened behind the last line.
    pub line: usize,
    /// The line as written.
    pub expected: String,
    /// What happened instead.
    pub got: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "line {}: expected `{}`, got `{}`", self.line, self.expected, self.got)
    }
}

/// What came of a dialogue.
#[derive(Debug)]
pub struct Outcome {
    /// Where it failed, if it did.
    pub failure: Option<Failure>,
    /// What was answered where answers differ between brokers.
    pub said: Vec<String>,
}

/// Carries `dialogue` out. `suffix` makes its names its own.
pub fn run<D: Dialer>(dialer: &D, login: &Login, dialogue: &Dialogue, suffix: &str) -> Outcome {
    let mut scope = Scope { suffix: suffix.to_string(), ..Scope::default() };
    for (name, value) in [("user", &login.user), ("password", &login.password), ("vhost", &login.vhost)] {
        scope.variables.insert(name.to_string(), Value::Text(value.clone().into_bytes()));
    }
    let mut conversation = Conversation {
        dialer,
        scope,
        links: BTreeMap::new(),
        queues: BTreeSet::new(),
        exchanges: BTreeSet::new(),
        said: Vec::new(),
    };
    let result = conversation.steps(&dialogue.steps).and_then(|()| conversation.end());
    let clean = conversation.clean_up();
    let said = conversation.said.into_iter();
    let said = said.map(|words| words.replace(suffix, "~")).collect();
    let failure = result.and(clean).err();
    let failure = failure.map(|failure| Failure { got: failure.got.replace(suffix, "~"), ..failure });
    Outcome { failure, said }
}

struct Conversation<'a, D: Dialer> {
    dialer: &'a D,
    scope: Scope,
    links: BTreeMap<String, Link<D::Link>>,
    queues: BTreeSet<Vec<u8>>,
    exchanges: BTreeSet<Vec<u8>>,
    said: Vec<String>,
}

impl<D: Dialer> Conversation<'_, D> {
    fn steps(&mut self, steps: &[Step]) -> Result<(), Failure> {
        for step in steps {
            let wrong = |got: String| Failure { line: step.line, expected: step.text.clone(), got };
            match &step.action {
                Action::Unordered(steps) => self.unordered(steps)?,
                Action::Together(steps) => self.together(steps).map_err(wrong)?,
                Action::Repeat(times, steps) => {
                    for turn in 1..=*times {
                        self.scope.variables.insert("i".into(), Value::Number(turn.into()));
                        self.steps(steps)?;
                    }
                }
                Action::Expect(link, expected) => {
                    let got = self.expect(link, expected).map_err(wrong)?;
                    if step.tagged {
                        self.said.push(got);
                    }
                }
                action => self.act(action).map_err(wrong)?,
            }
        }
        Ok(())
    }

    fn act(&mut self, action: &Action) -> Result<(), String> {
        match action {
            Action::Connect { link, channels, options } => self.connect(link, channels, options),
            Action::Dial(link) => self.dial(link),
            Action::Drop(link) => {
                self.link(link)?.transport.drop_now();
                self.links.remove(link);
                Ok(())
            }
            Action::Close(link) => self.close(link),
            Action::Wait(time) => {
                self.dialer.pause(*time);
                Ok(())
            }
            Action::Send(link, outgoing) => self.send(link, outgoing),
            Action::Expect(..) | Action::Unordered(_) | Action::Repeat(..) | Action::Together(_) => {
                unreachable!("the caller carries these out itself")
            }
        }
    }

    fn link(&mut self, name: &str) -> Result<&mut Link<D::Link>, String> {
        self.links.get_mut(name).ok_or_else(|| format!("no connection {name}"))
    }

    fn dial(&mut self, name: &str) -> Result<(), String> {
        let transport = self.dialer.dial().map_err(|error| format!("cannot connect: {error}"))?;
        self.links.insert(name.to_string(), Link::new(transport));
        Ok(())
    }

    fn hear(&mut self, name: &str, limit: Duration) -> Result<Arrival, String> {
        let dialer = self.dialer;
        let link = self.links.get_mut(name).ok_or_else(|| format!("no connection {name}"))?;
        let arrival = link.hear(limit, || dialer.now())?;
        if let Arrival::Method(said) = &arrival
            && said.method.name == "queue.declare-ok"
            && let Value::Text(queue) = said.field("queue")
        {
            self.queues.insert(queue.clone());
        }
        Ok(arrival)
    }

    /// Hears exactly this method, whatever its fields.
    fn hear_method(&mut self, name: &str, method: &str) -> Result<Said, String> {
        match self.hear(name, LIMIT)? {
            Arrival::Method(said) if said.method.name == method => Ok(said),
            other => Err(format!("{other} instead of {method}")),
        }
    }

    fn say(&mut self, name: &str, channel: u16, method: &str, fields: &[(&str, Value)]) -> Result<(), String> {
        let method = spec::by_name(method).expect("the callers name methods of the table");
        let mut values = defaults(method);
        for (field, value) in fields {
            let index = method.fields.iter().position(|found| found.name == *field);
            values[index.expect("the callers name fields of the table")] = value.clone();
        }
        let payload = encode_method(method, &values)?;
        self.link(name)?.send_frame(METHOD, channel, &payload)
    }

    // --- connecting -----------------------------------------------------------------------------

    fn connect(&mut self, name: &str, channels: &[u16], options: &[(String, Expression)]) -> Result<(), String> {
        let handshake = Handshake::new(options, &self.scope)?;
        self.dial(name)?;
        self.link(name)?.send(b"AMQP\x00\x00\x09\x01")?;
        for turn in handshake.turns() {
            self.hear_method(name, turn.heard)?;
            self.say(name, 0, turn.said, &turn.fields)?;
        }
        self.say(name, 0, "connection.open", &handshake.open())?;
        self.hear_method(name, "connection.open-ok")?;
        self.link(name)?.frame_max = handshake.frame_max();
        for channel in channels {
            self.say(name, *channel, "channel.open", &[])?;
            self.hear_method(name, "channel.open-ok")?;
        }
        Ok(())
    }

    /// Closes in order; whatever arrives instead of close-ok was not expected by the dialogue.
    fn close(&mut self, name: &str) -> Result<(), String> {
        let ok = Value::Text(b"OK".to_vec());
        self.say(name, 0, "connection.close", &[("reply-code", Value::Number(200)), ("reply-text", ok)])?;
        loop {
            match self.hear(name, LIMIT)? {
                Arrival::Method(said) if said.method.name == "connection.close-ok" => break,
                Arrival::Heartbeat => {}
                other => return Err(other.to_string()),
            }
        }
        self.links.remove(name);
        Ok(())
    }

    /// Behind the last line: nobody may have anything left to say.
    fn end(&mut self) -> Result<(), Failure> {
        let names: Vec<String> = self.links.keys().cloned().collect();
        for name in names {
            if self.links[&name].over || !self.links[&name].open {
                continue;
            }
            self.close(&name).map_err(|got| Failure {
                line: 0,
                expected: format!("{name} has nothing more to say at the end of the dialogue"),
                got,
            })?;
        }
        Ok(())
    }

    fn clean_up(&mut self) -> Result<(), Failure> {
        for link in self.links.values_mut() {
            link.transport.drop_now();
        }
        self.links.clear();
        if self.queues.is_empty() && self.exchanges.is_empty() {
            return Ok(());
        }
        self.delete_all().map_err(|got| Failure {
            line: 0,
            expected: "queues and exchanges of the dialogue can be deleted".into(),
            got,
        })
    }

    fn delete_all(&mut self) -> Result<(), String> {
        const NAME: &str = "the one that cleans up";
        self.connect(NAME, &[], &[])?;
        let things = std::mem::take(&mut self.queues).into_iter().map(|queue| ("queue", queue));
        let exchanges = std::mem::take(&mut self.exchanges).into_iter();
        let things = things.chain(exchanges.map(|exchange| ("exchange", exchange)));
        for (channel, (what, thing)) in (1_u16..).zip(things) {
            self.say(NAME, channel, "channel.open", &[])?;
            self.hear_method(NAME, "channel.open-ok")?;
            self.say(NAME, channel, &format!("{what}.delete"), &[(what, Value::Text(thing))])?;
            // A queue that is still locked goes with its connection; there is nothing to delete.
            self.hear(NAME, LIMIT)?;
        }
        self.links.remove(NAME);
        Ok(())
    }

    // --- sending --------------------------------------------------------------------------------

    fn together(&mut self, steps: &[Step]) -> Result<(), String> {
        self.links.values_mut().for_each(Link::hold);
        for step in steps {
            let Action::Send(link, outgoing) = &step.action else {
                return Err(format!("line {}: only what is sent may go together", step.line));
            };
            self.send(link, outgoing)?;
        }
        self.links.values_mut().try_for_each(Link::release)
    }

    fn send(&mut self, name: &str, outgoing: &Outgoing) -> Result<(), String> {
        match outgoing {
            Outgoing::Raw(parts) => {
                let bytes = self.concatenated(parts)?;
                self.link(name)?.send(&bytes)
            }
            Outgoing::Frame { kind, channel, payload, end } => {
                let payload = self.concatenated(payload)?;
                let mut bytes = Vec::new();
                write_frame(*kind, *channel, &payload, *end, &mut bytes);
                self.link(name)?.send(&bytes)
            }
            Outgoing::Header { channel, class, weight, body_size, properties } => {
                let header = Header {
                    class: *class,
                    weight: *weight,
                    body_size: *body_size,
                    properties: self.evaluated(properties)?,
                };
                self.link(name)?.send_frame(HEADER, *channel, &encode_header(&header)?)
            }
            Outgoing::Method { channel, method, fields, content } => {
                let mut values = defaults(method);
                for (index, expression) in fields {
                    values[*index] = expression.evaluate(&self.scope)?;
                }
                self.note_declared(method, &values);
                let payload = encode_method(method, &values)?;
                self.link(name)?.send_frame(METHOD, *channel, &payload)?;
                let Some((properties, body)) = content else {
                    return Ok(());
                };
                let body = body.bytes(&self.scope)?;
                let header = Header {
                    class: method.class,
                    weight: 0,
                    body_size: body.len() as u64,
                    properties: self.evaluated(properties)?,
                };
                self.link(name)?.send_content(*channel, &encode_header(&header)?, &body)
            }
        }
    }

    fn concatenated(&self, parts: &[Expression]) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend(part.bytes(&self.scope)?);
        }
        Ok(bytes)
    }

    fn evaluated(&self, properties: &Properties) -> Result<Vec<(usize, Value)>, String> {
        let value = |(index, value): &(usize, Expression)| Ok((*index, value.evaluate(&self.scope)?));
        properties.iter().map(value).collect()
    }

    /// Remembers what a declaration may have brought into the world.
    fn note_declared(&mut self, method: &Method, values: &[Value]) {
        let (names, field) = match method.name {
            "queue.declare" => (&mut self.queues, "queue"),
            "exchange.declare" => (&mut self.exchanges, "exchange"),
            _ => return,
        };
        let index = method.fields.iter().position(|found| found.name == field);
        if let Some(Value::Text(name)) = index.map(|index| &values[index])
            && !name.is_empty()
            && !name.starts_with(b"amq.")
        {
            names.insert(name.clone());
        }
    }

    // --- expecting ------------------------------------------------------------------------------

    /// `Ok` with what arrived, `Err` with what arrived instead.
    fn expect(&mut self, name: &str, expected: &Expected) -> Result<String, String> {
        match expected {
            Expected::Raw(parts) => {
                let wanted = self.concatenated(parts)?;
                let heard = self.link(name)?.hear_bytes(wanted.len(), LIMIT)?;
                if heard == wanted { Ok(quoted(&heard)) } else { Err(quoted(&heard)) }
            }
            Expected::Closed { after, within } => self.expect_closed(name, *after, *within),
            Expected::Nothing(time) => match self.hear(name, *time)? {
                Arrival::Nothing => Ok("nothing".into()),
                other => Err(other.to_string()),
            },
            Expected::Heartbeat(time) => match self.hear(name, *time)? {
                Arrival::Heartbeat => Ok("heartbeat".into()),
                other => Err(other.to_string()),
            },
            Expected::Confirms { channel, confirms } => self.expect_confirms(name, *channel, confirms.clone()),
            Expected::Method { .. } => {
                let arrival = self.hear_past_heartbeats(name)?;
                if is_expected(expected, &arrival, &mut self.scope)? {
                    return Ok(arrival.to_string());
                }
                Err(arrival.to_string())
            }
        }
    }

    fn hear_past_heartbeats(&mut self, name: &str) -> Result<Arrival, String> {
        loop {
            match self.hear(name, LIMIT)? {
                Arrival::Heartbeat => {}
                other => return Ok(other),
            }
        }
    }

    fn expect_closed(&mut self, name: &str, after: Duration, within: Duration) -> Result<String, String> {
        let begun = self.dialer.now();
        loop {
            match self.hear(name, (begun + within).saturating_sub(self.dialer.now()))? {
                Arrival::Heartbeat => {}
                Arrival::Closed => break,
                other => return Err(other.to_string()),
            }
        }
        let time = self.dialer.now() - begun;
        if time < after {
            return Err(format!("closed after only {time:.1?}"));
        }
        Ok("closed".into())
    }

    fn expect_confirms(&mut self, name: &str, channel: u16, mut confirms: Confirms) -> Result<String, String> {
        while !confirms.open().is_empty() {
            let arrival = self.hear_past_heartbeats(name)?;
            let right = match &arrival {
                Arrival::Method(said) => said.channel == channel && confirms.hear(said),
                _ => false,
            };
            if !right {
                return Err(format!("{arrival} while {:?} are open", confirms.open()));
            }
        }
        Ok("confirmed".into())
    }

    /// Each arrival must be one of the lines that its connection still waits for.
    fn unordered(&mut self, steps: &[Step]) -> Result<(), Failure> {
        let mut open: Vec<&Step> = steps.iter().collect();
        while let Some(first) = open.first().copied() {
            let wrong = |got: String| Failure { line: first.line, expected: first.text.clone(), got };
            let Action::Expect(name, _) = &first.action else {
                return Err(wrong("only expectations may be unordered".into()));
            };
            let arrival = self.hear_past_heartbeats(name).map_err(wrong)?;
            let mut found = None;
            for (index, step) in open.iter().enumerate() {
                let Action::Expect(other, expected) = &step.action else {
                    continue;
                };
                let before = self.scope.clone();
                if other == name && is_expected(expected, &arrival, &mut self.scope).map_err(wrong)? {
                    found = Some(index);
                    break;
                }
                self.scope = before;
            }
            let index = found.ok_or_else(|| wrong(arrival.to_string()))?;
            let step = open.remove(index);
            if step.tagged {
                self.said.push(arrival.to_string());
            }
        }
        Ok(())
    }
}

/// Zero, empty, false.
fn defaults(method: &Method) -> Vec<Value> {
    let default = |kind: Kind| match kind {
        Kind::Bit => Value::Flag(false),
        Kind::Octet | Kind::Short | Kind::Long | Kind::LongLong => Value::Number(0),
        Kind::ShortStr | Kind::LongStr => Value::Text(Vec::new()),
        Kind::Table => Value::Table(Vec::new()),
    };
    method.fields.iter().map(|field| default(field.kind)).collect()
}
