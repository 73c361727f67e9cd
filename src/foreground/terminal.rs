//! Copying between a container's terminal and our standard streams.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::{
    OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use crate::error::{Context, Result};

/// A page: what a pipe that is ready for writing takes without blocking.
const CHUNK: usize = 4096;

/// The descriptors of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// Our standard input.
    Input,
    /// Our standard output.
    Output,
    /// The terminal's master.
    Master,
}

/// Our standard input, as far as it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Open,
    /// We are in the background of its terminal.
    Paused,
    Ended,
}

/// The terminal of the container's process and ours.
#[derive(Debug)]
pub(super) struct Relay {
    master: OwnedFd,
    /// Standard output opened once more, not blocking, where that can be done without touching the caller's.
    output: Option<OwnedFd>,
    raw: Option<Raw>,
    input: Input,
    to_program: Buffer,
    to_user: Buffer,
    /// How many bytes were read from the terminal.
    copied: u64,
    /// Nobody reads our output.
    deaf: bool,
    /// Nobody has the slave open; somebody may open it again.
    hung: bool,
}

impl Relay {
    /// Starts a relay: our terminal becomes raw, the container's gets its size.
    pub(super) fn new(master: OwnedFd) -> Result<Relay> {
        let flags = rustix::fs::fcntl_getfl(&master).context(|| "cannot examine the terminal's master")?;
        rustix::fs::fcntl_setfl(&master, flags | OFlags::NONBLOCK).context(|| "cannot set up the terminal's master")?;
        let raw = Raw::of(rustix::stdio::stdin())?;
        Ok(Relay {
            master,
            output: reopen_output(),
            raw,
            input: Input::Open,
            to_program: Buffer::default(),
            to_user: Buffer::default(),
            copied: 0,
            deaf: false,
            hung: false,
        })
    }

    /// What is to be waited for.
    pub(super) fn watched(&self) -> Vec<(Stream, PollFlags)> {
        let mut streams = Vec::with_capacity(3);
        if !self.to_user.is_empty() {
            streams.push((Stream::Output, PollFlags::OUT));
        }
        if self.hung {
            return streams;
        }
        let mut master = PollFlags::empty();
        master.set(PollFlags::IN, self.to_user.is_empty());
        master.set(PollFlags::OUT, !self.to_program.is_empty());
        if !master.is_empty() {
            streams.push((Stream::Master, master));
        }
        if self.input == Input::Open && self.to_program.is_empty() {
            streams.push((Stream::Input, PollFlags::IN));
        }
        streams
    }

    /// How long to wait at most: poll(2) cannot tell that somebody opens the slave of a terminal that has hung up.
    pub(super) fn timeout(&self) -> Option<Timespec> {
        self.hung.then_some(Timespec { tv_sec: 0, tv_nsec: 50_000_000 })
    }

    pub(super) fn descriptor(&self, stream: Stream) -> BorrowedFd<'_> {
        match stream {
            Stream::Input => rustix::stdio::stdin(),
            Stream::Output => self.output.as_ref().map_or(rustix::stdio::stdout(), AsFd::as_fd),
            Stream::Master => self.master.as_fd(),
        }
    }

    /// Copies what a descriptor is ready for.
    pub(super) fn copy(&mut self, stream: Stream, ready: PollFlags) {
        if stream != Stream::Master && ready.is_empty() {
            return;
        }
        match stream {
            Stream::Input => self.read_input(),
            Stream::Output => self.write_output(),
            Stream::Master => {
                self.write_master();
                self.read_master();
            }
        }
    }

    /// Looks whether somebody has opened the slave of a terminal that has hung up.
    pub(super) fn retry(&mut self) {
        if self.hung {
            self.read_master();
        }
    }

    /// Whether there is output left, in our buffer or in the terminal.
    pub(super) fn has_output(&mut self) -> bool {
        self.read_master();
        !self.to_user.is_empty()
    }

    /// How many bytes the terminal has given.
    pub(super) fn copied(&self) -> u64 {
        self.copied
    }

    /// Follows a change of our terminal's size.
    pub(super) fn resize(&self) {
        fit(&self.master);
    }

    /// After a stop: a shell has set its own modes meanwhile, or has brought us to the foreground.
    pub(super) fn resume(&mut self) {
        if self.input == Input::Paused {
            self.input = Input::Open;
        }
        match &self.raw {
            Some(raw) => raw.set(),
            None => self.raw = Raw::of(rustix::stdio::stdin()).ok().flatten(),
        }
        self.resize();
    }

    fn read_input(&mut self) {
        match self.to_program.fill(rustix::stdio::stdin()) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(1..) => {}
            // The kernel's answer to a background process that has SIGTTIN blocked.
            Err(Errno::IO) if isatty(rustix::stdio::stdin()) && self.raw.is_none() => self.input = Input::Paused,
            Ok(0) | Err(_) => self.input = Input::Ended,
        }
    }

    fn write_output(&mut self) {
        let output = self.output.as_ref().map_or(rustix::stdio::stdout(), AsFd::as_fd);
        match self.to_user.empty(output) {
            Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => {
                self.deaf = true;
                self.to_user = Buffer::default();
            }
        }
    }

    fn write_master(&mut self) {
        if !self.to_program.is_empty()
            && let Err(Errno::IO) = self.to_program.empty(self.master.as_fd())
        {
            self.to_program = Buffer::default();
        }
    }

    fn read_master(&mut self) {
        if !self.to_user.is_empty() {
            return;
        }
        // Where nobody listens the terminal is emptied all the same, or the program would be stopped by it.
        self.hung = match self.to_user.fill(self.master.as_fd()) {
            Ok(0) => true,
            Err(e) => !matches!(e, Errno::AGAIN | Errno::INTR),
            Ok(n) => {
                self.copied += n as u64;
                false
            }
        };
        if self.deaf {
            self.to_user = Buffer::default();
        }
    }
}

/// Sets the container's terminal up for a relay, before the program runs: the size of ours, and newlines as they are.
pub fn set_up(master: &OwnedFd) -> Result<()> {
    fit(master);
    plain_newlines(master)
}

/// Gives the terminal behind `master` the size of ours, if we have one. To be done before the program runs, which may ask
/// for the size first of all.
fn fit(master: &OwnedFd) {
    let ours = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let size = ours.into_iter().find_map(|fd| tcgetwinsize(fd).ok());
    // A terminal that was never given a size has nothing to pass on.
    if let Some(size) = size.filter(|size| size.ws_row != 0 && size.ws_col != 0) {
        let _ = tcsetwinsize(master, size);
    }
}

/// Bytes on their way.
#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    sent: usize,
}

impl Buffer {
    fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Reads once into the buffer, which is empty.
    fn fill(&mut self, from: BorrowedFd<'_>) -> rustix::io::Result<usize> {
        self.sent = 0;
        self.bytes.resize(CHUNK, 0);
        let read = rustix::io::read(from, &mut self.bytes[..]);
        self.bytes.truncate(read.unwrap_or(0));
        read
    }

    /// Writes once.
    fn empty(&mut self, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
        self.sent += rustix::io::write(to, &self.bytes[self.sent..])?;
        Ok(())
    }
}

/// A terminal of ours in raw mode; its modes are restored when this is dropped.
#[derive(Debug)]
struct Raw {
    fd: BorrowedFd<'static>,
    before: Termios,
    raw: Termios,
}

/// Leaves a newline of the program's output a newline, with no carriage return before it: whoever reads our standard
/// output from a pipe or a file is not at a terminal.
fn plain_newlines(master: &OwnedFd) -> Result<()> {
    let cannot = || "cannot set the modes of the container's terminal";
    let mut modes = tcgetattr(master).context(cannot)?;
    modes.output_modes -= OutputModes::ONLCR;
    tcsetattr(master, OptionalActions::Now, &modes).context(cannot)
}

impl Raw {
    /// Makes a terminal raw. None where it is no terminal, or where it belongs to another job, as of the shell that has
    /// put us in the background.
    fn of(fd: BorrowedFd<'static>) -> Result<Option<Raw>> {
        if !isatty(fd) || tcgetpgrp(fd).is_ok_and(|group| group != rustix::process::getpgrp()) {
            return Ok(None);
        }
        let before = tcgetattr(fd).context(|| "cannot read the modes of the terminal on standard input")?;
        let mut raw = before.clone();
        raw.make_raw();
        // Output is still processed here, since it is not inside (see `Relay::new`).
        raw.output_modes |= before.output_modes & OutputModes::OPOST;
        let raw = Raw { fd, before, raw };
        tcsetattr(fd, OptionalActions::Now, &raw.raw).context(|| "cannot make the terminal on standard input raw")?;
        Ok(Some(raw))
    }

    fn set(&self) {
        let _ = tcsetattr(self.fd, OptionalActions::Now, &self.raw);
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(self.fd, OptionalActions::Now, &self.before);
    }
}

/// Opens a terminal on standard output once more: a write to a terminal blocks even if there is room for a part, and
/// O_NONBLOCK on the caller's own open file would be seen by others.
fn reopen_output() -> Option<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    isatty(rustix::stdio::stdout()).then(|| rustix::fs::open("/proc/self/fd/1", flags, Mode::empty()).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_keeps_what_was_not_written() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&writer, b"some text").unwrap();
        let mut buffer = Buffer::default();
        assert!(buffer.is_empty());
        assert_eq!(buffer.fill(reader.as_fd()), Ok(9));
        assert!(!buffer.is_empty());
        buffer.sent = 5;
        buffer.empty(writer.as_fd()).unwrap();
        assert!(buffer.is_empty());
        assert_eq!(buffer.fill(reader.as_fd()), Ok(4));
        assert_eq!(buffer.bytes, b"text");
    }
}
