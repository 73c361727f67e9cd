//! execveat(2) with the arguments and the environment that this process was given.

use std::ffi::{CStr, CString, c_char};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::ptr;

use crate::error::{Error, Result};

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// Executes `name` in the directory `dir`, or `dir` itself where `name` is empty, in place of this program. The process
/// must have a single thread. Returns only on failure.
pub fn exec_again(dir: BorrowedFd<'_>, name: &CStr) -> Result<std::convert::Infallible> {
    let args: Vec<CString> = std::env::args_os()
        .map(|arg| CString::new(arg.into_vec()).map_err(|_| Error::new("an argument has a NUL byte")))
        .collect::<Result<_>>()?;
    let argv: Vec<*const c_char> = args.iter().map(|arg| arg.as_ptr()).chain([ptr::null()]).collect();
    // SAFETY: argv and environ are arrays of C strings that end with a null pointer, and no other thread changes environ;
    // it is passed as it is, as a round trip through std would lose entries without "=".
    unsafe {
        libc::syscall(libc::SYS_execveat, dir.as_raw_fd(), name.as_ptr(), argv.as_ptr(), environ, libc::AT_EMPTY_PATH)
    };
    Err(Error::from(std::io::Error::last_os_error()))
}
