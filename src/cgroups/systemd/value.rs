//! Values of D-Bus: how they go over the wire, and how annotations write them (the text format of GVariant).

use crate::error::{Error, Result};

/// How deep values in annotations may nest.
const DEPTH: u32 = 16;

/// A value with its type.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Byte(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Double(f64),
    Text(String),
    Path(String),
    Signature(String),
    /// The signature of the elements, and the elements.
    Array(String, Vec<Value>),
    Struct(Vec<Value>),
    Variant(Box<Value>),
}

impl Value {
    pub(super) fn text(text: &str) -> Value {
        Value::Text(text.to_string())
    }

    /// The type, as D-Bus writes it.
    pub(super) fn signature(&self) -> String {
        match self {
            Value::Bool(_) => "b".into(),
            Value::Byte(_) => "y".into(),
            Value::I16(_) => "n".into(),
            Value::U16(_) => "q".into(),
            Value::I32(_) => "i".into(),
            Value::U32(_) => "u".into(),
            Value::I64(_) => "x".into(),
            Value::U64(_) => "t".into(),
            Value::Double(_) => "d".into(),
            Value::Text(_) => "s".into(),
            Value::Path(_) => "o".into(),
            Value::Signature(_) => "g".into(),
            Value::Array(element, _) => format!("a{element}"),
            Value::Struct(fields) => format!("({})", fields.iter().map(Value::signature).collect::<String>()),
            Value::Variant(_) => "v".into(),
        }
    }

    /// Appends the value, little-endian, to a message whose alignment counts from the start of `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Value::Bool(value) => put(out, &u32::from(*value).to_le_bytes()),
            Value::Byte(value) => out.push(*value),
            Value::I16(value) => put(out, &value.to_le_bytes()),
            Value::U16(value) => put(out, &value.to_le_bytes()),
            Value::I32(value) => put(out, &value.to_le_bytes()),
            Value::U32(value) => put(out, &value.to_le_bytes()),
            Value::I64(value) => put(out, &value.to_le_bytes()),
            Value::U64(value) => put(out, &value.to_le_bytes()),
            Value::Double(value) => put(out, &value.to_le_bytes()),
            Value::Text(text) | Value::Path(text) => {
                put(out, &length(text.len()).to_le_bytes());
                out.extend_from_slice(text.as_bytes());
                out.push(0);
            }
            Value::Signature(text) => put_signature(out, text),
            Value::Array(element, values) => {
                put(out, &[0; 4]);
                let size_at = out.len() - 4;
                pad(out, alignment(element));
                let start = out.len();
                values.iter().for_each(|value| value.encode(out));
                let size = length(out.len() - start).to_le_bytes();
                out[size_at..size_at + 4].copy_from_slice(&size);
            }
            Value::Struct(fields) => {
                pad(out, 8);
                fields.iter().for_each(|field| field.encode(out));
            }
            Value::Variant(value) => {
                put_signature(out, &value.signature());
                value.encode(out);
            }
        }
    }
}

/// A length on the wire. A message is far too short to exceed it.
pub(super) fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Fills up to a multiple of `to`.
pub(super) fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

/// Appends a number, which is aligned to its own size.
fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    pad(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_signature(out: &mut Vec<u8>, text: &str) {
    // A type is never as long as that: DEPTH and the tables of this module bound it.
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'y' | b'g' | b'v') => 1,
        Some(b'n' | b'q') => 2,
        Some(b'x' | b't' | b'd' | b'(') => 8,
        _ => 4,
    }
}

/// Reads a value as annotations write it: `'text'`, `true`, `5` (int32), `1.5`, `uint64 5`, `['a', 'b']`, `@as []`,
/// `('a', uint32 1)`, `<5>`.
pub(super) fn parse(text: &str) -> Result<Value> {
    let mut parser = Parser { rest: text };
    let value = parser.value(None, 0)?;
    parser.skip();
    if parser.rest.is_empty() { Ok(value) } else { Err(parser.fault("the end")) }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn fault(&self, wanted: &str) -> Error {
        if self.rest.is_empty() {
            Error::new(format!("it ends where {wanted} should be"))
        } else {
            Error::new(format!("{:?} is not {wanted}", self.rest))
        }
    }

    fn take(&mut self, mark: char) -> bool {
        self.skip();
        let rest = self.rest.strip_prefix(mark);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn word(&mut self, part: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !part(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// A value of the type `want`, where that is known.
    fn value(&mut self, want: Option<&str>, depth: u32) -> Result<Value> {
        if depth > DEPTH {
            return Err(Error::new("it nests too deep"));
        }
        self.skip();
        match self.rest.chars().next() {
            Some('@') => {
                self.rest = &self.rest[1..];
                let signature = self.word(|c| !c.is_whitespace());
                if one_type(signature) != Some("") {
                    return Err(Error::new(format!("{signature:?} is no type")));
                }
                self.value(Some(signature), depth + 1)
            }
            Some('\'' | '"') => self.quoted(want),
            Some('[') => self.array(want, depth),
            Some('(') => self.structure(want, depth),
            Some('<') => {
                self.rest = &self.rest[1..];
                let value = self.value(None, depth + 1)?;
                if self.take('>') { Ok(Value::Variant(Box::new(value))) } else { Err(self.fault("\">\"")) }
            }
            Some(c) if c.is_ascii_digit() || matches!(c, '-' | '+' | '.') => self.number(want),
            Some(c) if c.is_ascii_alphabetic() => self.named(want, depth),
            _ => Err(self.fault("a value")),
        }
    }

    fn named(&mut self, want: Option<&str>, depth: u32) -> Result<Value> {
        let before = self.rest;
        let signature = match self.word(|c| c.is_ascii_alphanumeric()) {
            word @ ("true" | "false") if matches!(want, None | Some("b")) => return Ok(Value::Bool(word == "true")),
            "boolean" => "b",
            "byte" => "y",
            "int16" => "n",
            "uint16" => "q",
            "int32" => "i",
            "uint32" => "u",
            "int64" => "x",
            "uint64" => "t",
            "double" => "d",
            "string" => "s",
            "objectpath" => "o",
            "signature" => "g",
            _ => {
                self.rest = before;
                return Err(self.fault("a value"));
            }
        };
        self.value(Some(signature), depth + 1)
    }

    fn quoted(&mut self, want: Option<&str>) -> Result<Value> {
        let mut chars = self.rest.char_indices();
        let quote = chars.next().map_or('\'', |(_, c)| c);
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.rest = &self.rest[at + 1..];
                    return match want {
                        None | Some("s") => Ok(Value::Text(text)),
                        Some("o") => Ok(Value::Path(text)),
                        Some("g") if text.len() < 256 => Ok(Value::Signature(text)),
                        Some(want) => Err(Error::new(format!("{text:?} is not of type {want}"))),
                    };
                }
                '\\' => match chars.next().map(|(_, c)| c) {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('r') => text.push('\r'),
                    Some(c @ ('\\' | '\'' | '"')) => text.push(c),
                    _ => return Err(Error::new("it has an escape that is not known")),
                },
                '\0' => return Err(Error::new("it has a zero byte")),
                c => text.push(c),
            }
        }
        Err(Error::new("the text has no closing quote"))
    }

    fn number(&mut self, want: Option<&str>) -> Result<Value> {
        let word = self.word(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.'));
        let hex = word.strip_prefix("0x");
        let whole = || match hex {
            Some(digits) => i128::from_str_radix(digits, 16).ok(),
            None => word.parse::<i128>().ok(),
        };
        let kind = want.unwrap_or(if hex.is_none() && word.contains(['.', 'e', 'E']) { "d" } else { "i" });
        let value = match kind {
            "y" => whole().and_then(|n| n.try_into().ok()).map(Value::Byte),
            "n" => whole().and_then(|n| n.try_into().ok()).map(Value::I16),
            "q" => whole().and_then(|n| n.try_into().ok()).map(Value::U16),
            "i" => whole().and_then(|n| n.try_into().ok()).map(Value::I32),
            "u" => whole().and_then(|n| n.try_into().ok()).map(Value::U32),
            "x" => whole().and_then(|n| n.try_into().ok()).map(Value::I64),
            "t" => whole().and_then(|n| n.try_into().ok()).map(Value::U64),
            "d" => word.parse().ok().map(Value::Double),
            _ => None,
        };
        value.ok_or_else(|| Error::new(format!("{word} is no number of type {kind}")))
    }

    fn array(&mut self, want: Option<&str>, depth: u32) -> Result<Value> {
        let mut element = match want.map(|want| want.strip_prefix('a')) {
            Some(None) => return Err(self.fault("of the type that is said")),
            Some(element) => element.map(String::from),
            None => None,
        };
        self.rest = &self.rest[1..];
        let mut values = Vec::new();
        while !self.take(']') {
            if !values.is_empty() && !self.take(',') {
                return Err(self.fault("\",\" or \"]\""));
            }
            let value = self.value(element.as_deref(), depth + 1)?;
            if *element.get_or_insert_with(|| value.signature()) != value.signature() {
                return Err(Error::new("the elements of an array are of different types"));
            }
            values.push(value);
        }
        let element = element.ok_or_else(|| Error::new("the type of an empty array is not said (@as [])"))?;
        Ok(Value::Array(element, values))
    }

    fn structure(&mut self, want: Option<&str>, depth: u32) -> Result<Value> {
        let mut types = match want.map(|want| want.strip_prefix('(')) {
            Some(None) => return Err(self.fault("of the type that is said")),
            Some(types) => types,
            None => None,
        };
        self.rest = &self.rest[1..];
        let mut fields = Vec::new();
        while !self.take(')') {
            if !fields.is_empty() && !self.take(',') {
                return Err(self.fault("\",\" or \")\""));
            }
            // GVariant writes a single field as in (1,).
            if self.take(')') {
                break;
            }
            let rest = types.and_then(one_type);
            let field = types.zip(rest).map(|(types, rest)| &types[..types.len() - rest.len()]);
            fields.push(self.value(field, depth + 1)?);
            types = rest;
        }
        let value = Value::Struct(fields);
        match want {
            Some(want) if want != value.signature() => Err(Error::new(format!("a part is not of type {want}"))),
            _ => Ok(value),
        }
    }
}

/// What follows the first complete type of a signature; none where there is no such type. Dictionaries are left out: no
/// property of a scope has one.
fn one_type(signature: &str) -> Option<&str> {
    let mut rest = signature;
    for _ in 0..DEPTH {
        let first = rest.chars().next()?;
        rest = &rest[first.len_utf8()..];
        match first {
            'a' => {}
            '(' => {
                while !rest.starts_with(')') {
                    rest = one_type(rest)?;
                }
                return rest.strip_prefix(')');
            }
            'b' | 'y' | 'n' | 'q' | 'i' | 'u' | 'x' | 't' | 'd' | 's' | 'o' | 'g' | 'v' => return Some(rest),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_read() {
        let texts = |values: &[&str]| Value::Array("s".into(), values.iter().map(|text| Value::text(text)).collect());
        for (text, want) in [
            ("'it''", None),
            ("'inactive-or-failed'", Some(Value::text("inactive-or-failed"))),
            (r#" "a\'\n" "#, Some(Value::text("a'\n"))),
            ("true", Some(Value::Bool(true))),
            ("15", Some(Value::I32(15))),
            ("-0x1", None),
            ("0x10", Some(Value::I32(16))),
            ("4294967296", None),
            ("uint64 10000000", Some(Value::U64(10_000_000))),
            ("uint64 -1", None),
            ("1.5", Some(Value::Double(1.5))),
            ("byte 255", Some(Value::Byte(255))),
            ("@u 7", Some(Value::U32(7))),
            ("['a', \"b\"]", Some(texts(&["a", "b"]))),
            ("@as []", Some(texts(&[]))),
            ("[]", None),
            ("[1, 'a']", None),
            ("[uint64 1, 2]", Some(Value::Array("t".into(), vec![Value::U64(1), Value::U64(2)]))),
            ("('a', uint32 1)", Some(Value::Struct(vec![Value::text("a"), Value::U32(1)]))),
            ("@(sb) ('a', true)", Some(Value::Struct(vec![Value::text("a"), Value::Bool(true)]))),
            ("@(sb) ('a')", None),
            ("<5>", Some(Value::Variant(Box::new(Value::I32(5))))),
            ("", None),
            ("yes", None),
            ("5 6", None),
            ("@a{sv} []", None),
        ] {
            assert_eq!(parse(text).ok(), want, "{text}");
        }
        assert!(parse(&"[".repeat(100_000)).is_err());
        assert!(parse(&format!("@{} []", "(".repeat(100))).is_err());
    }

    #[test]
    fn values_are_aligned_on_the_wire() {
        let mut out = Vec::new();
        Value::Byte(1).encode(&mut out);
        Value::U64(2).encode(&mut out);
        assert_eq!(out, [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        let mut out = Vec::new();
        let property = Value::Struct(vec![Value::text("x"), Value::Variant(Box::new(Value::Bool(true)))]);
        let list = Value::Array(property.signature(), vec![property]);
        assert_eq!(list.signature(), "a(sv)");
        list.encode(&mut out);
        let want = [16, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, b'x', 0, 1, b'b', 0, 0, 0, 0, 1, 0, 0, 0];
        assert_eq!(out, want);
    }
}
