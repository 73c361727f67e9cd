//! A blocking D-Bus client of just what a scope needs: calls of systemd's manager, and the ends of its jobs.
//!
//! The runtime forks, so it may have no second thread. systemd's own socket saves the way through the bus, and the
//! greeting there, which otherwise goes out with the first call.

use std::io::{ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::value::{Value, length, pad};
use crate::error::{Context, Error, Result};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const BUS: &str = "org.freedesktop.DBus";

/// How long systemd may take for an answer, and for a job. What it has to say of others meanwhile gives it no more time
/// than one answer takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often, and how far apart, a new connection is tried where systemd hangs up.
const TRIES: u32 = 30;
const PAUSE: Duration = Duration::from_millis(100);

/// No message of the manager is longer.
const LONGEST: usize = 16 << 20;

/// What the manager answers to a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The first text of the answer: the path of a job.
    Done(String),
    /// The error's name and text.
    Fault(String, String),
}

/// A connection to a systemd instance.
#[derive(Debug)]
pub(super) struct Manager {
    user: Option<u32>,
    uid: u32,
    /// The unit of whose jobs to be told.
    unit: String,
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    serial: u32,
    /// Whether a bus lies between.
    bus: bool,
    /// Whether systemd has accepted the connection.
    accepted: bool,
    /// The jobs that have ended, and how.
    ended: Vec<(String, String)>,
    /// When to wait no longer.
    deadline: Instant,
}

impl Manager {
    /// Connects to the system's instance, or to that of the user `uid`, without waiting for its word. To be told of jobs
    /// of `unit`.
    pub(super) fn connect(user: Option<u32>, uid: u32, unit: &str) -> Result<Manager> {
        let (stream, bus) = dial(user)?;
        let (unit, input, output, ended) = (unit.to_string(), Vec::new(), Vec::new(), Vec::new());
        let deadline = Instant::now() + PATIENCE;
        let mut manager =
            Manager { user, uid, unit, stream, input, output, serial: 0, bus, accepted: false, ended, deadline };
        manager.greet();
        Ok(manager)
    }

    /// Says who is calling. That it cannot be said is seen when the answer is read.
    fn greet(&mut self) {
        let mut hello = b"\0AUTH EXTERNAL ".to_vec();
        for digit in self.uid.to_string().bytes() {
            hello.extend_from_slice(format!("{digit:02x}").as_bytes());
        }
        hello.extend_from_slice(b"\r\nBEGIN\r\n");
        // Nothing more before the answer: what systemd has read together with BEGIN it looks at only when more comes.
        let _ = self.stream.write_all(&hello);
    }

    /// Waits until the connection is accepted; connects again where systemd hangs up before it was asked anything, as it
    /// does when it executes itself anew (daemon-reexec).
    fn ready(&mut self) -> Result<()> {
        let mut tries = 0..TRIES;
        self.deadline = Instant::now() + PATIENCE;
        while !self.accepted {
            match self.greeted() {
                Err(e) if e.errno() == libc::ECONNRESET && tries.next().is_some() => {
                    std::thread::sleep(PAUSE);
                    if let Ok((stream, bus)) = dial(self.user) {
                        (self.stream, self.bus) = (stream, bus);
                        self.input.clear();
                        self.greet();
                    }
                }
                done => {
                    done.map_err(|e| e.context("connecting to systemd"))?;
                    self.accepted = true;
                }
            }
        }
        Ok(())
    }

    fn queue(&mut self, destination: &str, path: &str, interface: &str, member: &str, arguments: &[Value]) {
        self.serial += 1;
        let destination = self.bus.then_some(destination);
        self.output.extend(message(self.serial, destination, path, interface, member, arguments));
    }

    /// Calls methods of the manager, all with one write, without waiting for their replies. Returns the number of the
    /// first call; the others count on.
    pub(super) fn ask(&mut self, calls: &[(&str, &[Value])]) -> Result<u32> {
        let place = || format!("{} of systemd", calls.first().map_or("a method", |(method, _)| method));
        self.ready()?;
        if self.bus && self.serial == 0 {
            self.queue(BUS, "/org/freedesktop/DBus", BUS, "Hello", &[]);
            let rule = format!(
                "type='signal',sender='{SYSTEMD}',path='{MANAGER_PATH}',interface='{MANAGER}',member='JobRemoved',arg2='{}'",
                self.unit
            );
            self.queue(BUS, "/org/freedesktop/DBus", BUS, "AddMatch", &[Value::Text(rule)]);
        }
        let first = self.serial + 1;
        for (method, arguments) in calls {
            self.queue(SYSTEMD, MANAGER_PATH, MANAGER, method, arguments);
        }
        self.stream.write_all(&std::mem::take(&mut self.output)).context(place)?;
        Ok(first)
    }

    /// Waits for the reply to a call. Replies come in the order of the calls.
    pub(super) fn reply(&mut self, call: u32) -> Result<Reply> {
        self.deadline = Instant::now() + PATIENCE;
        loop {
            match self.receive()? {
                (serial, reply) if serial == call => return Ok(reply),
                // Of the greeting.
                (serial, Reply::Fault(name, text)) if self.bus && matches!(serial, 1 | 2) => {
                    return Err(Error::new(format!("{text} ({name})")).context("connecting to systemd"));
                }
                _ => {}
            }
        }
    }

    /// Calls a method of the manager and waits for its reply.
    pub(super) fn call(&mut self, method: &str, arguments: &[Value]) -> Result<Reply> {
        let call = self.ask(&[(method, arguments)])?;
        self.reply(call).map_err(|e| e.context(format!("{method} of systemd")))
    }

    /// Waits for the end of a job: `done`, or how it failed.
    pub(super) fn wait(&mut self, job: &str) -> Result<String> {
        self.deadline = Instant::now() + PATIENCE;
        loop {
            if let Some((_, result)) = self.ended.iter().find(|(ended, _)| ended == job) {
                return Ok(result.clone());
            }
            self.receive().map_err(|e| e.context("waiting for a job of systemd"))?;
        }
    }

    /// The answer to the greeting.
    fn greeted(&mut self) -> Result<()> {
        loop {
            if let Some(end) = self.input.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.input.drain(..end + 2).collect();
                if line.starts_with(b"OK") {
                    return Ok(());
                }
                let line = String::from_utf8_lossy(&line).trim_end().to_string();
                return Err(Error::new(format!("it refuses: {line}")));
            }
            self.read()?;
        }
    }

    /// The next message: the serial that it answers (0 for a signal), and what it says.
    fn receive(&mut self) -> Result<(u32, Reply)> {
        loop {
            if let Some(size) = Message::size(&self.input)? {
                let bytes: Vec<u8> = self.input.drain(..size).collect();
                let message = Message::parse(&bytes)?;
                self.ended.extend(message.job);
                return Ok((message.answers, message.reply));
            }
            self.read()?;
        }
    }

    fn read(&mut self) -> Result<()> {
        let late = || Err(Error::new(format!("it does not answer for {} seconds", PATIENCE.as_secs())));
        let mut buffer = [0_u8; 4096];
        loop {
            if Instant::now() >= self.deadline {
                return late();
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(Error::from_errno(libc::ECONNRESET, "it has closed the connection")),
                Ok(length) => {
                    self.input.extend_from_slice(&buffer[..length]);
                    return Ok(());
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return late(),
                Err(e) => return Err(Error::from(e).context("cannot read the answer")),
            }
        }
    }
}

/// Opens a connection to the instance. Whether a bus lies between.
fn dial(user: Option<u32>) -> Result<(UnixStream, bool)> {
    let mut tried = Vec::new();
    let mut last = None;
    for (address, bus) in addresses(user) {
        match UnixStream::connect_addr(&address) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE)).context(|| "cannot set a timeout for systemd")?;
                return Ok((stream, bus));
            }
            Err(e) => {
                tried.push(format!("{address:?}"));
                last = Some(e);
            }
        }
    }
    let whose = user.map_or("systemd".into(), |uid| format!("the systemd instance of uid {uid}"));
    let what = format!("cannot reach {whose} ({})", tried.join(", "));
    let e = last.map_or_else(|| Error::new("it has no address"), Error::from).context(what);
    Err(match user {
        Some(_) => e.hint("log in with a session of one's own, or: loginctl enable-linger USER"),
        None => e,
    })
}

/// Where the instance listens, and whether that is a bus.
fn addresses(user: Option<u32>) -> Vec<(SocketAddr, bool)> {
    let path = |path: PathBuf, bus| SocketAddr::from_pathname(path).ok().map(|address| (address, bus));
    let variable = if user.is_some() { "DBUS_SESSION_BUS_ADDRESS" } else { "DBUS_SYSTEM_BUS_ADDRESS" };
    let named = std::env::var(variable).unwrap_or_default();
    let named = sockets(&named).into_iter().map(|address| (address, true));
    let Some(uid) = user else {
        let own = path("/run/systemd/private".into(), false);
        return own.into_iter().chain(named).chain(path("/run/dbus/system_bus_socket".into(), true)).collect();
    };
    let dir = runtime_dir(uid);
    let own = path(dir.join("systemd/private"), false);
    own.into_iter().chain(named).chain(path(dir.join("bus"), true)).collect()
}

/// Where a user's instance keeps what lasts as long as it runs.
pub(super) fn runtime_dir(uid: u32) -> PathBuf {
    let given = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| Path::new(dir).is_absolute());
    given.map_or_else(|| PathBuf::from(format!("/run/user/{uid}")), PathBuf::from)
}

/// The sockets of an address of D-Bus: `unix:path=PATH` or `unix:abstract=NAME`, several with `;` between.
fn sockets(address: &str) -> Vec<SocketAddr> {
    let options = address.split(';').filter_map(|one| one.strip_prefix("unix:")).flat_map(|one| one.split(','));
    let socket = |option: &str| match option.split_once('=')? {
        ("path", path) => SocketAddr::from_pathname(unescape(path)).ok(),
        ("abstract", name) => SocketAddr::from_abstract_name(unescape(name)).ok(),
        _ => None,
    };
    options.filter_map(socket).collect()
}

/// Decodes `%XX`.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.get(..2).filter(|_| first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A method call.
fn message(
    serial: u32,
    destination: Option<&str>,
    path: &str,
    interface: &str,
    member: &str,
    arguments: &[Value],
) -> Vec<u8> {
    let mut body = Vec::new();
    arguments.iter().for_each(|argument| argument.encode(&mut body));
    let signature: String = arguments.iter().map(Value::signature).collect();
    let field = |code, value| Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))]);
    let mut fields =
        vec![field(1, Value::Path(path.to_string())), field(2, Value::text(interface)), field(3, Value::text(member))];
    fields.extend(destination.map(|name| field(6, Value::text(name))));
    if !signature.is_empty() {
        fields.push(field(8, Value::Signature(signature)));
    }
    // Little-endian, a call, no flags, version 1.
    let mut out = vec![b'l', 1, 0, 1];
    Value::U32(length(body.len())).encode(&mut out);
    Value::U32(serial).encode(&mut out);
    Value::Array("(yv)".into(), fields).encode(&mut out);
    pad(&mut out, 8);
    out.extend(body);
    out
}

/// What matters of a message of the manager.
#[derive(Debug, PartialEq, Eq)]
struct Message {
    answers: u32,
    reply: Reply,
    /// The path of a job that has ended, and its result.
    job: Option<(String, String)>,
}

impl Message {
    /// The size of the message that `input` starts with; none where a part of it is still to come.
    fn size(input: &[u8]) -> Result<Option<usize>> {
        if input.len() < 16 {
            return Ok(None);
        }
        let mut reader = Reader::new(input)?;
        let body = reader.u32_at(4)?;
        let fields = reader.u32_at(12)?;
        let size = (16 + fields).next_multiple_of(8) + body;
        if size > LONGEST {
            return Err(Error::new("it sends a message that is too long"));
        }
        Ok((input.len() >= size).then_some(size))
    }

    fn parse(bytes: &[u8]) -> Result<Message> {
        let mut reader = Reader::new(bytes)?;
        let kind = bytes.get(1).copied().unwrap_or_default();
        let end = 16 + reader.u32_at(12)?;
        reader.at = 16;
        let (mut answers, mut name, mut member, mut signature) = (0, String::new(), String::new(), String::new());
        while reader.at < end {
            reader.align(8);
            let code = reader.byte()?;
            let kind = reader.signature()?;
            let (mut number, mut text) = (0, String::new());
            match kind.as_str() {
                "u" => number = reader.u32()?,
                "s" | "o" => text = reader.text()?,
                "g" => text = reader.signature()?,
                _ => return Err(Error::new("it sends a message that cannot be read")),
            }
            match code {
                3 => member = text,
                4 => name = text,
                5 => answers = number,
                8 => signature = text,
                _ => {}
            }
        }
        reader.at = end;
        reader.align(8);
        let job = match (kind, member.as_str(), signature.as_str()) {
            (4, "JobRemoved", "uoss") => {
                reader.u32()?;
                let path = reader.text()?;
                reader.text()?;
                Some((path, reader.text()?))
            }
            _ => None,
        };
        let text = if kind != 4 && signature.starts_with(['s', 'o']) { reader.text()? } else { String::new() };
        let reply = if kind == 3 { Reply::Fault(name, text) } else { Reply::Done(text) };
        Ok(Message { answers, reply, job })
    }
}

/// Reads a message, which may be cut off anywhere.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Result<Reader<'a>> {
        match bytes.first() {
            Some(b'l') => Ok(Reader { bytes, at: 0, big: false }),
            Some(b'B') => Ok(Reader { bytes, at: 0, big: true }),
            _ => Err(Error::new("it does not speak D-Bus")),
        }
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length);
        let bytes = end.and_then(|end| self.bytes.get(self.at..end));
        self.at += length;
        bytes.ok_or_else(|| Error::new("it sends a message that is cut off"))
    }

    fn byte(&mut self) -> Result<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u32(&mut self) -> Result<u32> {
        self.align(4);
        let mut four = [0; 4];
        four.copy_from_slice(self.take(4)?);
        Ok(if self.big { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) })
    }

    fn u32_at(&mut self, at: usize) -> Result<usize> {
        self.at = at;
        let number = self.u32()? as usize;
        if number > LONGEST { Err(Error::new("it sends a message that is too long")) } else { Ok(number) }
    }

    fn text(&mut self) -> Result<String> {
        let length = self.u32()? as usize;
        self.zero_terminated(length)
    }

    fn signature(&mut self) -> Result<String> {
        let length = usize::from(self.byte()?);
        self.zero_terminated(length)
    }

    fn zero_terminated(&mut self, length: usize) -> Result<String> {
        let text = self.take(length)?;
        self.take(1)?;
        Ok(String::from_utf8_lossy(text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of the manager, made as a call is and with the kind and the fields of an answer.
    fn answer(kind: u8, fields: Vec<(u8, Value)>, body: &[Value]) -> Vec<u8> {
        let mut data = Vec::new();
        body.iter().for_each(|value| value.encode(&mut data));
        let field = |(code, value)| Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))]);
        let mut out = vec![b'l', kind, 0, 1];
        Value::U32(length(data.len())).encode(&mut out);
        Value::U32(1).encode(&mut out);
        Value::Array("(yv)".into(), fields.into_iter().map(field).collect()).encode(&mut out);
        pad(&mut out, 8);
        out.extend(data);
        out
    }

    fn messages() -> [(Vec<u8>, Message); 3] {
        let signature = |text: &str| (8, Value::Signature(text.into()));
        let done = |text: &str| Reply::Done(text.into());
        [
            (
                answer(2, vec![(5, Value::U32(3)), signature("o")], &[Value::Path("/job/1".into())]),
                Message { answers: 3, reply: done("/job/1"), job: None },
            ),
            (
                answer(3, vec![(4, Value::text("a.b")), (5, Value::U32(3)), signature("s")], &[Value::text("no")]),
                Message { answers: 3, reply: Reply::Fault("a.b".into(), "no".into()), job: None },
            ),
            (
                answer(
                    4,
                    vec![(3, Value::text("JobRemoved")), signature("uoss")],
                    &[Value::U32(1), Value::Path("/job/1".into()), Value::text("x.scope"), Value::text("done")],
                ),
                Message { answers: 0, reply: done(""), job: Some(("/job/1".into(), "done".into())) },
            ),
        ]
    }

    #[test]
    fn answers_are_read() {
        for (bytes, want) in messages() {
            assert_eq!(Message::size(&bytes).unwrap(), Some(bytes.len()));
            assert_eq!(Message::parse(&bytes).unwrap(), want);
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        for (bytes, _) in messages() {
            for end in 0..bytes.len() {
                let _ = Message::parse(&bytes[..end]);
                assert!(!matches!(Message::size(&bytes[..end]), Ok(Some(_))));
                for value in [0, 0x7f, 0xff] {
                    let mut wrong = bytes.clone();
                    wrong[end] = value;
                    let _ = Message::size(&wrong);
                    let _ = Message::parse(&wrong);
                }
            }
        }
    }

    #[test]
    fn calls_are_whole_messages() {
        let call = message(7, Some(SYSTEMD), MANAGER_PATH, MANAGER, "StopUnit", &[Value::text("x.scope")]);
        assert_eq!(Message::size(&call).unwrap(), Some(call.len()));
        assert_eq!(Message::parse(&call).unwrap().reply, Reply::Done("x.scope".into()));
    }

    #[test]
    fn addresses_are_sockets() {
        let path = |path: &str| SocketAddr::from_pathname(path).unwrap();
        let show = |list: Vec<SocketAddr>| format!("{list:?}");
        let found = sockets("tcp:host=x;unix:path=/run/a%20b,guid=1;unix:abstract=n");
        assert_eq!(show(found), show(vec![path("/run/a b"), SocketAddr::from_abstract_name("n").unwrap()]));
    }
}
