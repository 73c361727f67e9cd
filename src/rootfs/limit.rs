//! Enough descriptors for the trees of all bind mounts, which are open at the same time until init attaches them.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What the runtime and init need besides.
const BESIDES: u64 = 64;

/// A raised soft limit of open files. It goes back when this is dropped: the program gets the caller's.
#[derive(Debug)]
pub(super) struct Raised {
    soft: u64,
}

/// Raises the soft limit where `count` trees would not fit; as far as the hard limit allows.
pub(super) fn raise(count: usize) -> Option<Raised> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let wanted = (count as u64 + BESIDES).min(hard);
    if wanted <= soft {
        return None;
    }
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).ok()?;
    Some(Raised { soft })
}

impl Drop for Raised {
    fn drop(&mut self) {
        if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, self.soft.min(hard), hard);
        }
    }
}
