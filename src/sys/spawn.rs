//! Programs of others that are run as children.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::sys::fd::cloexec_from;

/// Lets a child inherit nothing of ours but its standard streams: no descriptor, and no blocked signal. It is killed where
/// this process is: who waits for it is gone then.
pub fn isolate(command: &mut Command) -> &mut Command {
    // SAFETY: the closure makes three system calls and touches nothing that another thread could hold locked.
    unsafe {
        command.pre_exec(|| {
            let none = nix::sys::signal::SigSet::empty();
            none.thread_set_mask()?;
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
            cloexec_from(3).map_err(|e| std::io::Error::from_raw_os_error(e.errno()))
        })
    }
}
