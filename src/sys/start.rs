//! What the runtime of Rust does first, of which a program without it needs two things.

/// Makes sure that there are three standard streams, as a file that is opened later must not be taken for one of them;
/// and has writing to a closed pipe give an error.
pub fn prepare() {
    let mut streams = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: the array has three entries, which the kernel fills in; open and signal take constants.
    unsafe {
        // Where it cannot be found out, the streams are taken as they are.
        if libc::poll(streams.as_mut_ptr(), 3, 0) > 0 {
            for _ in streams.iter().filter(|s| s.revents & libc::POLLNVAL != 0) {
                // Opened as the lowest number that is free.
                if libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) < 0 {
                    libc::abort();
                }
            }
        }
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
}
