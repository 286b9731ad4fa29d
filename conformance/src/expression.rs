//! Values as a dialogue writes them: read from text, turned into values to send, held against
//! values that arrived.

use crate::value::{Table, Value, table_bytes};
use std::collections::BTreeMap;

/// What a dialogue knows while it runs: its captured variables and its own name suffix.
#[derive(Debug, Default, Clone)]
pub struct Scope {
    /// `$name` to what was captured for it.
    pub variables: BTreeMap<String, Value>,
    /// What `~` in a string stands for, different in every run of every dialogue.
    pub suffix: String,
}

/// A piece of a quoted string.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Bytes as they are.
    Bytes(Vec<u8>),
    /// `~`.
    Suffix,
    /// `$name`.
    Variable(String),
}

/// A quoted string.
pub type Template = Vec<Piece>;

/// A value as written.
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    /// `*`: there is a value, and it is no part of the contract.
    Any,
    /// A literal without strings.
    Literal(Value),
    /// `"text"`.
    Text(Template),
    /// `like "text*"`: `*` is any run of bytes.
    Like(Template),
    /// `$name`, perhaps with a `like`: captured when first met, equal from then on.
    Variable(String, Option<Template>),
    /// `filler(N)`: N bytes in a pattern with period 251.
    Filler(usize),
    /// `[a, b]`.
    Array(Vec<Self>),
    /// `{key: value}`; with `...` at the end more entries may follow.
    Table(Vec<(Template, Self)>, bool),
    /// `bare {...}`: the bytes of a table without its length, as AMQPLAIN wants them.
    Bare(Box<Self>),
    /// A value with a tag letter.
    Tagged(u8, Box<Self>),
}

/// The pattern of `filler(size)`.
pub fn filler(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index % 251) as u8).collect()
}

fn expand(template: &Template, scope: &Scope) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    for piece in template {
        match piece {
            Piece::Bytes(bytes) => text.extend_from_slice(bytes),
            Piece::Suffix => text.extend_from_slice(scope.suffix.as_bytes()),
            Piece::Variable(name) => match scope.variables.get(name) {
                Some(Value::Text(value)) => text.extend_from_slice(value),
                Some(other) => text.extend_from_slice(other.to_string().as_bytes()),
                None => return Err(format!("${name} was never captured")),
            },
        }
    }
    Ok(text)
}

/// Whether `text` matches `pattern`, in which `*` stands for any run of bytes.
fn is_like(pattern: &[u8], text: &[u8]) -> bool {
    let mut parts = pattern.split(|byte| *byte == b'*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&[u8]> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle.iter().filter(|part| !part.is_empty()) {
        let Some(at) = rest.windows(part.len()).position(|window| window == *part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

impl Expression {
    /// The value to send.
    pub fn evaluate(&self, scope: &Scope) -> Result<Value, String> {
        Ok(match self {
            Self::Any | Self::Like(_) => return Err("a wildcard cannot be sent".into()),
            Self::Literal(value) => value.clone(),
            Self::Text(template) => Value::Text(expand(template, scope)?),
            Self::Filler(size) => Value::Text(filler(*size)),
            Self::Variable(name, _) => {
                scope.variables.get(name).cloned().ok_or_else(|| format!("${name} was never captured"))?
            }
            Self::Array(members) => {
                Value::Array(members.iter().map(|member| member.evaluate(scope)).collect::<Result<_, _>>()?)
            }
            Self::Table(entries, _) => {
                let mut table = Table::new();
                for (key, value) in entries {
                    table.push((expand(key, scope)?, value.evaluate(scope)?));
                }
                Value::Table(table)
            }
            Self::Bare(table) => match table.evaluate(scope)? {
                Value::Table(table) => Value::Text(table_bytes(&table)?),
                other => return Err(format!("{other} is not a table")),
            },
            Self::Tagged(tag, inner) => Value::Tagged(*tag, Box::new(inner.evaluate(scope)?)),
        })
    }

    /// The bytes to send, for what can only be bytes.
    pub fn bytes(&self, scope: &Scope) -> Result<Vec<u8>, String> {
        match self.evaluate(scope)? {
            Value::Text(bytes) => Ok(bytes),
            other => Err(format!("{other} is not a string")),
        }
    }

    /// Whether `value` is what the dialogue expects; captures variables on the way.
    pub fn matches(&self, value: &Value, scope: &mut Scope) -> Result<bool, String> {
        Ok(match (self, value) {
            (Self::Any, _) => true,
            (Self::Literal(literal), _) => literal == value,
            (Self::Text(template), Value::Text(text)) => expand(template, scope)? == *text,
            (Self::Like(template), Value::Text(text)) => is_like(&expand(template, scope)?, text),
            (Self::Filler(size), Value::Text(text)) => filler(*size) == *text,
            (Self::Variable(name, like), _) => {
                if let Some(known) = scope.variables.get(name) {
                    return Ok(known == value);
                }
                if let (Some(like), Value::Text(text)) = (like, value)
                    && !is_like(&expand(like, scope)?, text)
                {
                    return Ok(false);
                }
                scope.variables.insert(name.clone(), value.clone());
                true
            }
            (Self::Array(members), Value::Array(values)) => {
                members.len() == values.len() && all_match(members.iter().zip(values), scope)?
            }
            (Self::Table(entries, open), Value::Table(table)) => {
                let mut keys =
                    entries.iter().zip(table).map(|((key, _), (found, _))| expand(key, scope).map(|key| key == *found));
                (entries.len() == table.len() || *open && entries.len() < table.len())
                    && keys.try_fold(true, |all, same| same.map(|same| all && same))?
                    && all_match(entries.iter().zip(table).map(|((_, entry), (_, found))| (entry, found)), scope)?
            }
            (Self::Tagged(tag, inner), Value::Tagged(found, value)) => tag == found && inner.matches(value, scope)?,
            _ => false,
        })
    }
}

fn all_match<'a>(pairs: impl Iterator<Item = (&'a Expression, &'a Value)>, scope: &mut Scope) -> Result<bool, String> {
    for (expression, value) in pairs {
        if !expression.matches(value, scope)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads a line from left to right.
#[derive(Debug)]
pub struct Cursor<'a> {
    rest: &'a str,
}

fn is_word(byte: char) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, '_' | '-' | '.')
}

impl<'a> Cursor<'a> {
    /// Starts at the beginning of `line`.
    pub fn new(line: &'a str) -> Self {
        Self { rest: line.trim() }
    }

    /// What is left.
    pub fn rest(&self) -> &'a str {
        self.rest
    }

    /// Whether nothing is left.
    pub fn is_done(&mut self) -> bool {
        self.skip_space();
        self.rest.is_empty()
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Takes `token` if it comes next.
    pub fn accept(&mut self, token: &str) -> bool {
        self.skip_space();
        let taken = self.rest.strip_prefix(token);
        self.rest = taken.unwrap_or(self.rest);
        taken.is_some()
    }

    /// Takes `token`, which must come next.
    pub fn demand(&mut self, token: &str) -> Result<(), String> {
        if self.accept(token) {
            return Ok(());
        }
        Err(format!("`{token}` wanted before `{}`", self.rest))
    }

    /// The next word without taking it; empty if it is something else.
    pub fn peek_word(&mut self) -> &'a str {
        self.skip_space();
        let end = self.rest.find(|byte| !is_word(byte)).unwrap_or(self.rest.len());
        &self.rest[..end]
    }

    /// Takes a word: letters, digits, `_`, `-`, `.`.
    pub fn word(&mut self) -> Result<&'a str, String> {
        let word = self.peek_word();
        if word.is_empty() {
            return Err(format!("a word wanted before `{}`", self.rest));
        }
        self.rest = &self.rest[word.len()..];
        Ok(word)
    }

    /// Takes the word if it is exactly this one.
    pub fn accept_word(&mut self, word: &str) -> bool {
        let found = self.peek_word() == word;
        if found {
            self.rest = &self.rest[word.len()..];
        }
        found
    }

    /// Takes a number.
    pub fn number<T: std::str::FromStr>(&mut self) -> Result<T, String> {
        let word = self.word()?;
        word.parse().map_err(|_| format!("`{word}` is no number that fits here"))
    }

    /// Takes the name in `name=value`, `=` included, if such a thing comes next.
    pub fn accept_name(&mut self) -> Option<&'a str> {
        let word = self.peek_word();
        if word.is_empty() || !self.rest[word.len()..].starts_with('=') {
            return None;
        }
        self.rest = &self.rest[word.len() + 1..];
        Some(word)
    }

    /// Takes a quoted string.
    pub fn template(&mut self) -> Result<Template, String> {
        self.demand("\"")?;
        let mut pieces = Template::new();
        let mut bytes = Vec::new();
        let mut flush = |bytes: &mut Vec<u8>, next: Option<Piece>| {
            if !bytes.is_empty() {
                pieces.push(Piece::Bytes(std::mem::take(bytes)));
            }
            pieces.extend(next);
        };
        loop {
            let mut characters = self.rest.chars();
            let Some(character) = characters.next() else {
                return Err("a string without its end".into());
            };
            self.rest = characters.as_str();
            match character {
                '"' => break,
                '~' => flush(&mut bytes, Some(Piece::Suffix)),
                '$' => {
                    let name = self.variable_name();
                    flush(&mut bytes, Some(Piece::Variable(name?)));
                }
                '\\' => bytes.push(self.escape()?),
                other => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        flush(&mut bytes, None);
        Ok(pieces)
    }

    fn variable_name(&mut self) -> Result<String, String> {
        let is_name = |byte: char| byte.is_ascii_alphanumeric() || byte == '_';
        let end = self.rest.find(|byte| !is_name(byte)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        if name.is_empty() {
            return Err("`$` without a name".into());
        }
        Ok(name.to_string())
    }

    fn escape(&mut self) -> Result<u8, String> {
        let wrong = || "an unknown escape".to_string();
        let kind = self.rest.chars().next().ok_or_else(wrong)?;
        self.rest = &self.rest[kind.len_utf8()..];
        Ok(match kind {
            'n' => b'\n',
            'r' => b'\r',
            '0' => 0,
            '"' | '\\' | '~' | '$' => kind as u8,
            'x' => {
                let digits = self.rest.get(..2).ok_or_else(wrong)?;
                self.rest = &self.rest[2..];
                u8::from_str_radix(digits, 16).map_err(|_| wrong())?
            }
            _ => return Err(wrong()),
        })
    }

    /// Takes hexadecimal bytes up to the end of the line or something else, and quoted strings
    /// between them.
    pub fn octets(&mut self) -> Result<Vec<Expression>, String> {
        let mut parts = Vec::new();
        loop {
            self.skip_space();
            if self.rest.starts_with('"') {
                parts.push(Expression::Text(self.template()?));
                continue;
            }
            let word = self.peek_word();
            let Some(bytes) = hexadecimal(word) else {
                return Ok(parts);
            };
            self.rest = &self.rest[word.len()..];
            parts.push(Expression::Literal(Value::Text(bytes)));
        }
    }

    fn hexadecimal_in_parentheses(&mut self) -> Result<Vec<u8>, String> {
        self.demand("(")?;
        let mut bytes = Vec::new();
        while !self.accept(")") {
            let word = self.word()?;
            bytes.extend(hexadecimal(word).ok_or_else(|| format!("`{word}` is not hexadecimal"))?);
        }
        Ok(bytes)
    }

    /// Takes a value without tag, as fields and properties have.
    pub fn expression(&mut self) -> Result<Expression, String> {
        self.skip_space();
        Ok(match self.rest.chars().next() {
            Some('"') => Expression::Text(self.template()?),
            Some('*') => {
                self.demand("*")?;
                Expression::Any
            }
            Some('$') => {
                self.demand("$")?;
                let name = self.variable_name()?;
                let like = if self.accept_word("like") { Some(self.template()?) } else { None };
                Expression::Variable(name, like)
            }
            Some('{') => self.table()?,
            Some('[') => self.array()?,
            _ => match self.word()? {
                "like" => Expression::Like(self.template()?),
                "bare" => Expression::Bare(Box::new(self.table()?)),
                "true" => Expression::Literal(Value::Flag(true)),
                "false" => Expression::Literal(Value::Flag(false)),
                "hex" => Expression::Literal(Value::Text(self.hexadecimal_in_parentheses()?)),
                "raw" => Expression::Literal(Value::Raw(self.hexadecimal_in_parentheses()?)),
                "filler" => {
                    self.demand("(")?;
                    let size = self.number()?;
                    self.demand(")")?;
                    Expression::Filler(size)
                }
                word => number(word)?,
            },
        })
    }

    fn table(&mut self) -> Result<Expression, String> {
        self.demand("{")?;
        let mut entries = Vec::new();
        while !self.accept("}") {
            if self.accept("...") {
                self.demand("}")?;
                return Ok(Expression::Table(entries, true));
            }
            let key = if self.rest.starts_with('"') {
                self.template()?
            } else {
                vec![Piece::Bytes(self.word()?.as_bytes().to_vec())]
            };
            self.demand(":")?;
            entries.push((key, self.tagged()?));
            self.accept(",");
        }
        Ok(Expression::Table(entries, false))
    }

    fn array(&mut self) -> Result<Expression, String> {
        self.demand("[")?;
        let mut members = Vec::new();
        while !self.accept("]") {
            members.push(self.tagged()?);
            self.accept(",");
        }
        Ok(Expression::Array(members))
    }

    /// Takes a table entry's value: a tag letter and a value, or a value that needs no letter.
    fn tagged(&mut self) -> Result<Expression, String> {
        let word = self.peek_word();
        let letter = word.as_bytes().first().copied().unwrap_or_default();
        if word.len() != 1 || !letter.is_ascii_alphabetic() {
            let value = self.expression()?;
            let Some(tag) = usual_tag(&value) else {
                return Ok(value);
            };
            return Ok(Expression::Tagged(tag, Box::new(value)));
        }
        self.rest = &self.rest[1..];
        let value = match letter {
            b'V' => Expression::Literal(Value::Void),
            b'D' => Expression::Literal(Value::Decimal { scale: self.number()?, unscaled: self.number()? }),
            b'f' | b'd' => {
                let float: f64 = self.number()?;
                Expression::Literal(Value::Float(float))
            }
            _ => self.expression()?,
        };
        Ok(Expression::Tagged(letter, Box::new(value)))
    }
}

/// The tag of a table entry that is written without one.
fn usual_tag(value: &Expression) -> Option<u8> {
    match value {
        Expression::Text(_) => Some(b'S'),
        Expression::Table(..) => Some(b'F'),
        Expression::Array(_) => Some(b'A'),
        Expression::Literal(Value::Flag(_)) => Some(b't'),
        Expression::Literal(Value::Number(_)) => Some(b'I'),
        _ => None,
    }
}

fn number(word: &str) -> Result<Expression, String> {
    let number: i128 = word.parse().map_err(|_| format!("`{word}` is no value"))?;
    Ok(Expression::Literal(Value::Number(number)))
}

fn hexadecimal(word: &str) -> Option<Vec<u8>> {
    if word.is_empty() || !word.len().is_multiple_of(2) || !word.is_ascii() {
        return None;
    }
    (0..word.len()).step_by(2).map(|at| u8::from_str_radix(&word[at..at + 2], 16).ok()).collect()
}
