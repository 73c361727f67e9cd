//! `run` and `exec` without `--detach`: signals are passed on, the terminal is copied, the exit status is the program's.

use std::os::fd::OwnedFd;

use crate::error::{Error, Result};

/// Signals blocked before the fork, so that none is lost between the fork and [`wait`].
#[derive(Debug)]
pub struct Signals {}

impl Signals {
    /// Blocks the signals that are to be passed on, and becomes a subreaper unless told not to.
    pub fn block(_subreaper: bool) -> Result<Signals> {
        Err(Error::new("foreground containers are not built yet"))
    }

    /// In the child: restores the signal mask that the caller had.
    pub fn restore(&self) -> Result<()> {
        Err(Error::new("foreground containers are not built yet"))
    }
}

/// Waits for the process to end, passing signals on to it and, where there is a terminal, copying between its master and
/// our standard streams (put in raw mode meanwhile) and following changes of the window's size. Returns the exit code,
/// 128+n for a signal.
pub fn wait(_signals: &Signals, _pid: i32, _pidfd: &OwnedFd, _terminal: Option<OwnedFd>) -> Result<i32> {
    Err(Error::new("foreground containers are not built yet"))
}
