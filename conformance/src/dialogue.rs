//! Dialogues as text: chapters (files) of dialogues, each a title and its lines.
//!
//! `dialogues/README.md` describes the language. How lines are carried out is in
//! [`crate::conversation`].

use crate::confirms::Confirms;
use crate::expression::{Cursor, Expression};
use crate::frame::FRAME_END;
use crate::spec::{self, Method};
use std::time::Duration;

/// Which broker answers: decides which tagged lines count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// RabbitMQ 3.10.
    Rabbitmq310,
    /// ProntoMQ.
    Prontomq,
}

impl Target {
    /// From the name on the command line.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "rabbitmq-3.10" => Some(Self::Rabbitmq310),
            "prontomq" => Some(Self::Prontomq),
            _ => None,
        }
    }

    /// `ours` marks decisions of ProntoMQ, `4.2` what RabbitMQ does since, `3.10` what it did then.
    fn hears(self, tag: &str) -> Result<bool, String> {
        match tag {
            "3.10" => Ok(self == Self::Rabbitmq310),
            "4.2" | "ours" => Ok(self == Self::Prontomq),
            other => Err(format!("no tag [{other}]; there are 3.10, 4.2 and ours")),
        }
    }
}

/// One dialogue.
#[derive(Debug)]
pub struct Dialogue {
    /// `chapter: title`.
    pub name: String,
    /// What happens.
    pub steps: Vec<Step>,
    /// Whether any of it is said differently to different brokers, or to one only.
    pub differs: bool,
    /// Whether it takes seconds by its nature; such ones are begun first.
    pub slow: bool,
}

/// One line.
#[derive(Debug, Clone)]
pub struct Step {
    /// Line number in the chapter.
    pub line: usize,
    /// The line as written, without its tag.
    pub text: String,
    /// Whether it carried a tag.
    pub tagged: bool,
    /// What it does.
    pub action: Action,
}

/// What a line does.
#[derive(Debug, Clone)]
pub enum Action {
    /// Connects and logs in, opens channels.
    Connect {
        /// Name of the connection.
        link: String,
        /// Channels to open.
        channels: Vec<u16>,
        /// Deviations from the usual handshake.
        options: Vec<(String, Expression)>,
    },
    /// Connects without a word.
    Dial(String),
    /// Gives the connection up without a word.
    Drop(String),
    /// Closes the connection in order.
    Close(String),
    /// Lets time go by.
    Wait(Duration),
    /// `LINK > ...`.
    Send(String, Outgoing),
    /// `LINK < ...`.
    Expect(String, Expected),
    /// Expectations that may come true in any order.
    Unordered(Vec<Step>),
    /// The same lines several times; `$i` counts from 1.
    Repeat(u64, Vec<Step>),
    /// What these lines send goes out in one write.
    Together(Vec<Step>),
}

/// Properties by index into [`spec::properties`], rising, as written.
pub type Properties = Vec<(usize, Expression)>;

/// What is sent.
#[derive(Debug, Clone)]
pub enum Outgoing {
    /// Bytes as they are.
    Raw(Vec<Expression>),
    /// A frame.
    Frame {
        /// Its type.
        kind: u8,
        /// Its channel.
        channel: u16,
        /// Its payload.
        payload: Vec<Expression>,
        /// Its last octet.
        end: u8,
    },
    /// A method, with content if that was written.
    Method {
        /// Channel number.
        channel: u16,
        /// Which.
        method: &'static Method,
        /// Fields by index; the others are zero, empty or false.
        fields: Vec<(usize, Expression)>,
        /// What follows it.
        content: Option<(Properties, Expression)>,
    },
    /// A content header by itself.
    Header {
        /// Channel number.
        channel: u16,
        /// Class id.
        class: u16,
        /// Weight.
        weight: u16,
        /// Announced body size in bytes.
        body_size: u64,
        /// Properties.
        properties: Properties,
    },
}

/// What must arrive next.
#[derive(Debug, Clone)]
pub enum Expected {
    /// These bytes.
    Raw(Vec<Expression>),
    /// The end of the connection, not earlier and not later than this.
    Closed {
        /// At the earliest.
        after: Duration,
        /// At the latest.
        within: Duration,
    },
    /// Nothing for this time.
    Nothing(Duration),
    /// A heartbeat at the latest after this time.
    Heartbeat(Duration),
    /// basic.ack and basic.nack that cover exactly these numbers.
    Confirms {
        /// Channel number.
        channel: u16,
        /// Which.
        confirms: Confirms,
    },
    /// This method.
    Method {
        /// Channel number.
        channel: u16,
        /// Which.
        method: &'static Method,
        /// Fields by index; the others are not looked at.
        fields: Vec<(usize, Expression)>,
        /// All properties, if the dialogue speaks of them; the flag allows more.
        properties: Option<(Properties, bool)>,
        /// The body, if the dialogue speaks of it.
        body: Option<Expression>,
    },
}

/// All dialogues of a chapter that `target` takes part in, or where the text is wrong.
pub fn parse_chapter(chapter: &str, text: &str, target: Target) -> Result<Vec<Dialogue>, String> {
    let mut dialogues = Vec::new();
    let mut lines = Lines { lines: text.lines().enumerate(), target, tagged: false };
    while let Some((number, line)) = lines.next_line() {
        let at = |wrong: String| format!("{chapter}.txt line {number}: {wrong}");
        let Some(title) = line.strip_prefix("== ") else {
            return Err(at(format!("`== title` wanted, not `{line}`")));
        };
        let (heard, tagged, title) = lines.untag(title).map_err(at)?;
        let slow = title.ends_with("(slow)");
        let title = title.trim_end_matches("(slow)").trim();
        lines.tagged = tagged;
        let steps = lines.steps(None).map_err(|wrong| format!("{chapter}.txt {wrong}"))?;
        if !heard {
            continue;
        }
        let name = format!("{chapter}: {title}");
        dialogues.push(Dialogue { name, steps, differs: lines.tagged, slow });
    }
    Ok(dialogues)
}

struct Lines<'a> {
    lines: std::iter::Enumerate<std::str::Lines<'a>>,
    target: Target,
    /// Whether a tag was met since this was last cleared.
    tagged: bool,
}

impl<'a> Lines<'a> {
    /// The next line that is neither empty nor a comment.
    fn next_line(&mut self) -> Option<(usize, &'a str)> {
        let is_said = |line: &str| !line.is_empty() && !line.starts_with('#');
        self.lines.by_ref().map(|(index, line)| (index + 1, line.trim())).find(|(_, line)| is_said(line))
    }

    /// Whether the target hears the line, whether it has a tag, and the line without it.
    fn untag(&self, line: &'a str) -> Result<(bool, bool, &'a str), String> {
        let Some((tags, line)) = line.strip_prefix('[').and_then(|line| line.split_once(']')) else {
            return Ok((true, false, line));
        };
        let mut heard = false;
        for tag in tags.split_whitespace() {
            heard |= self.target.hears(tag)?;
        }
        Ok((heard, true, line.trim()))
    }

    /// Lines up to the next title, or up to `}` for a block that began in line `block`.
    fn steps(&mut self, block: Option<usize>) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        loop {
            let ahead = self.lines.clone();
            let Some((line, text)) = self.next_line() else {
                return match block {
                    Some(line) => Err(format!("line {line}: a block without its end")),
                    None => Ok(steps),
                };
            };
            let at = |wrong: String| format!("line {line}: {wrong}");
            if text.starts_with("== ") && block.is_none() {
                self.lines = ahead;
                return Ok(steps);
            }
            if text == "}" && block.is_some() {
                return Ok(steps);
            }
            let (heard, tagged, text) = self.untag(text).map_err(at)?;
            self.tagged |= tagged;
            let action = if let Some(head) = text.strip_suffix('{') {
                self.block(head.trim(), line)?
            } else {
                action(text).map_err(at)?
            };
            if heard {
                steps.push(Step { line, text: text.to_string(), tagged, action });
            }
        }
    }

    fn block(&mut self, head: &str, line: usize) -> Result<Action, String> {
        let steps = self.steps(Some(line))?;
        let mut cursor = Cursor::new(head);
        let at = |wrong: String| format!("line {line}: {wrong}");
        match cursor.word().map_err(at)? {
            "unordered" => Ok(Action::Unordered(steps)),
            "repeat" => Ok(Action::Repeat(cursor.number().map_err(at)?, steps)),
            "together" => Ok(Action::Together(steps)),
            other => Err(at(format!("no block `{other}`"))),
        }
    }
}

/// How long something that is due at once may take on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(10);

fn action(text: &str) -> Result<Action, String> {
    let mut cursor = Cursor::new(text);
    let first = cursor.word()?.to_string();
    let action = match first.as_str() {
        "connect" => connect(&mut cursor)?,
        "dial" => Action::Dial(cursor.word()?.into()),
        "drop" => Action::Drop(cursor.word()?.into()),
        "close" => Action::Close(cursor.word()?.into()),
        "wait" => Action::Wait(duration(&mut cursor)?),
        _ if cursor.accept(">") => Action::Send(first, outgoing(&mut cursor)?),
        _ if cursor.accept("<") => Action::Expect(first, expected(&mut cursor)?),
        _ => return Err(format!("`{first}` is no beginning of a line")),
    };
    if cursor.is_done() {
        return Ok(action);
    }
    Err(format!("too much: `{}`", cursor.rest()))
}

fn connect(cursor: &mut Cursor<'_>) -> Result<Action, String> {
    let link = cursor.word()?.into();
    let mut channels = Vec::new();
    while cursor.peek_word().starts_with(|byte: char| byte.is_ascii_digit()) {
        channels.push(cursor.number()?);
    }
    let mut options = Vec::new();
    while let Some(name) = cursor.accept_name() {
        const KNOWN: [&str; 7] = ["user", "password", "vhost", "heartbeat", "frame-max", "channel-max", "capabilities"];
        if !KNOWN.contains(&name) {
            return Err(format!("connect knows no `{name}`"));
        }
        options.push((name.to_string(), cursor.expression()?));
    }
    Ok(Action::Connect { link, channels, options })
}

fn duration(cursor: &mut Cursor<'_>) -> Result<Duration, String> {
    let word = cursor.word()?;
    let wrong = || format!("`{word}` is no time; write 200ms or 2.5s");
    let (digits, unit) = match word.strip_suffix("ms") {
        Some(digits) => (digits, 0.001),
        None => (word.strip_suffix('s').ok_or_else(wrong)?, 1.0),
    };
    let count: f64 = digits.parse().map_err(|_| wrong())?;
    Ok(Duration::from_secs_f64(count * unit))
}

fn outgoing(cursor: &mut Cursor<'_>) -> Result<Outgoing, String> {
    if cursor.accept_word("raw") {
        return Ok(Outgoing::Raw(cursor.octets()?));
    }
    if cursor.accept_word("heartbeat") {
        return Ok(Outgoing::Frame { kind: 8, channel: 0, payload: Vec::new(), end: FRAME_END });
    }
    if cursor.accept_word("frame") {
        return frame(cursor);
    }
    let channel = cursor.number()?;
    if cursor.accept_word("header") {
        return header(cursor, channel);
    }
    if cursor.accept_word("body") {
        let payload = vec![cursor.expression()?];
        return Ok(Outgoing::Frame { kind: 3, channel, payload, end: FRAME_END });
    }
    let (method, fields) = method(cursor)?;
    let mut content = None;
    if cursor.accept("|") {
        let (properties, open) = properties(cursor)?;
        if open {
            return Err("`...` cannot be sent".into());
        }
        cursor.accept("|");
        content = Some((properties, cursor.expression()?));
    }
    Ok(Outgoing::Method { channel, method, fields, content })
}

fn frame(cursor: &mut Cursor<'_>) -> Result<Outgoing, String> {
    let (kind, channel) = (cursor.number()?, cursor.number()?);
    let payload = if cursor.peek_word() == "filler" { vec![cursor.expression()?] } else { cursor.octets()? };
    let mut end = FRAME_END;
    if cursor.accept_name() == Some("end") {
        let word = cursor.word()?;
        end = u8::from_str_radix(word, 16).map_err(|_| format!("`{word}` is no octet"))?;
    }
    Ok(Outgoing::Frame { kind, channel, payload, end })
}

fn header(cursor: &mut Cursor<'_>, channel: u16) -> Result<Outgoing, String> {
    let (mut class, mut weight, mut body_size) = (60, 0, 0);
    while let Some(name) = cursor.accept_name() {
        match name {
            "class" => class = cursor.number()?,
            "weight" => weight = cursor.number()?,
            "size" => body_size = cursor.number()?,
            other => return Err(format!("a header has no `{other}`")),
        }
    }
    let properties = if cursor.accept("|") { properties(cursor)?.0 } else { Vec::new() };
    Ok(Outgoing::Header { channel, class, weight, body_size, properties })
}

type Fields = Vec<(usize, Expression)>;

fn method(cursor: &mut Cursor<'_>) -> Result<(&'static Method, Fields), String> {
    let name = cursor.word()?;
    let method = spec::by_name(name).ok_or_else(|| format!("no method `{name}`"))?;
    if name.ends_with(".close") && !cursor.is_done() {
        return Ok((method, close_fields(cursor)?));
    }
    let mut fields = Fields::new();
    while let Some(name) = cursor.accept_name() {
        let index = method.fields.iter().position(|field| field.name == name);
        let index = index.ok_or_else(|| format!("{} has no `{name}`", method.name))?;
        fields.push((index, cursor.expression()?));
    }
    Ok((method, fields))
}

/// `404 "text" by queue.declare`: a close always says all four.
fn close_fields(cursor: &mut Cursor<'_>) -> Result<Fields, String> {
    let number = |number: u16| Expression::Literal(crate::value::Value::Number(number.into()));
    let code = number(cursor.number()?);
    let text = cursor.expression()?;
    cursor.demand("by")?;
    if cursor.accept("*") {
        return Ok(vec![(0, code), (1, text), (2, Expression::Any), (3, Expression::Any)]);
    }
    let blamed = cursor.word()?;
    let (class, id) = match (blamed, spec::by_name(blamed)) {
        ("none", _) => (0, 0),
        (_, Some(method)) => (method.class, method.id),
        (_, None) => {
            let ids = blamed.split_once('.').ok_or_else(|| format!("no method `{blamed}`"))?;
            let id = |text: &str| text.parse().map_err(|_| format!("no method `{blamed}`"));
            (id(ids.0)?, id(ids.1)?)
        }
    };
    Ok(vec![(0, code), (1, text), (2, number(class)), (3, number(id))])
}

/// `name=value ...`, and whether `...` allows others.
fn properties(cursor: &mut Cursor<'_>) -> Result<(Properties, bool), String> {
    let mut properties = Properties::new();
    while let Some(name) = cursor.accept_name() {
        let index = spec::properties().iter().position(|property| property.name == name);
        let index = index.ok_or_else(|| format!("no property `{name}`"))?;
        properties.push((index, cursor.expression()?));
    }
    properties.sort_by_key(|(index, _)| *index);
    Ok((properties, cursor.accept("...")))
}

fn expected(cursor: &mut Cursor<'_>) -> Result<Expected, String> {
    if cursor.accept_word("raw") {
        return Ok(Expected::Raw(cursor.octets()?));
    }
    if cursor.accept_word("nothing") {
        return Ok(Expected::Nothing(duration(cursor)?));
    }
    if cursor.accept_word("heartbeat") {
        cursor.demand("within")?;
        return Ok(Expected::Heartbeat(duration(cursor)?));
    }
    if cursor.accept_word("closed") {
        let after = if cursor.accept_word("after") { duration(cursor)? } else { Duration::ZERO };
        let within = if cursor.accept_word("within") { duration(cursor)? } else { AT_ONCE };
        return Ok(Expected::Closed { after, within });
    }
    let channel = cursor.number()?;
    if cursor.accept_word("confirms") {
        return confirms(cursor, channel);
    }
    let (method, fields) = method(cursor)?;
    if method.name.ends_with(".close") && fields.len() != 4 {
        return Err("a close says code, text and `by` whom".into());
    }
    let (mut listed, mut body) = (None, None);
    if cursor.accept("|") {
        let found = properties(cursor)?;
        let only_body = found.0.is_empty() && !found.1 && !cursor.accept("|");
        if !only_body {
            cursor.accept("|");
            listed = Some(found);
        }
        if !cursor.is_done() {
            body = Some(cursor.expression()?);
        }
    }
    Ok(Expected::Method { channel, method, fields, properties: listed, body })
}

fn confirms(cursor: &mut Cursor<'_>, channel: u16) -> Result<Expected, String> {
    let (mut acked, mut nacked, mut after_return) = (Vec::new(), Vec::new(), false);
    while !cursor.is_done() {
        let numbers = match cursor.word()? {
            "ack" => &mut acked,
            "nack" => &mut nacked,
            "after" => {
                cursor.demand("return")?;
                after_return = true;
                continue;
            }
            other => return Err(format!("`{other}` is neither ack nor nack")),
        };
        while cursor.peek_word().starts_with(|byte: char| byte.is_ascii_digit()) {
            let word = cursor.word()?;
            let (first, last) = word.split_once("..").unwrap_or((word, word));
            let number = |text: &str| text.parse::<u64>().map_err(|_| format!("`{text}` is no number"));
            numbers.extend(number(first)?..=number(last)?);
            cursor.accept(",");
        }
    }
    let confirms = Confirms::new(&acked, &nacked, after_return);
    Ok(Expected::Confirms { channel, confirms })
}
