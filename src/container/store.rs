//! Where containers are kept: one directory each below the state root, with `state.json` (by rename, so that it is read
//! whole without a lock), `config.json` as it was at create, the compiled seccomp filter, and the start gate's socket.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};

use super::state::State;
use super::{Host, lock};
use crate::error::{Cause, Context, Error, Result};
use crate::init::gate;
use crate::log;
use crate::security::seccomp::Filter;

/// The directory of one container.
#[derive(Debug)]
pub(super) struct Entry {
    /// The container's name.
    pub(super) id: String,
    /// The directory's path, for messages.
    pub(super) path: PathBuf,
    dir: OwnedFd,
}

/// What config.json is called until the cgroup is the container's own.
const UNCLAIMED: &str = ".config.json";

/// The compiled seccomp filter: the flags, whether it has a listener, the number of instructions, and these, all in the
/// machine's byte order.
const FILTER: &str = "seccomp.bpf";

/// The directory that is there while CRIU restores the container.
const ROOT: &str = "criu-root";

/// How long a command waits for another one that works on the same container.
const PATIENCE: Duration = Duration::from_secs(10);

/// What state.json is called until it holds.
const STAGED: &str = ".state.json";

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A container's name: what runc allows.
pub(super) fn check_id(id: &str) -> Result<()> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "_+.-".contains(c);
    if id.is_empty() || id == "." || id == ".." || id.len() > 255 || !id.chars().all(legal) {
        return Err(Error::new(format!(
            "invalid container ID {id:?}: it has letters, digits and _ + . - only, at most 255 of them"
        )));
    }
    Ok(())
}

/// Takes a name: makes its directory, which is the proof that it was free, and locks it.
pub(super) fn reserve(host: &Host, id: &str) -> Result<Entry> {
    check_id(id)?;
    let path = host.root.join(id);
    let made = match rustix::fs::mkdir(&path, Mode::from_raw_mode(0o711)) {
        Err(rustix::io::Errno::NOENT) => {
            let mut builder = std::fs::DirBuilder::new();
            std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
            builder.create(&host.root).context(|| format!("cannot make the state root {}", host.root.display()))?;
            rustix::fs::mkdir(&path, Mode::from_raw_mode(0o711))
        }
        made => made,
    };
    match made {
        Err(rustix::io::Errno::EXIST) => {
            return Err(Error::of(
                Cause::Exists,
                format!("container with given ID already exists: {id} (`delete --force {id}` removes it)"),
            ));
        }
        made => made.context(|| format!("cannot make the state directory {}", path.display()))?,
    }
    let entry = open_path(id, path)?;
    entry.lock()?;
    Ok(entry)
}

/// Opens the directory of a container.
pub(super) fn open(host: &Host, id: &str) -> Result<Entry> {
    check_id(id)?;
    match open_path(id, host.root.join(id)) {
        Err(e) if e.errno() == libc::ENOENT => Err(missing(id)),
        entry => entry,
    }
}

/// The same, and waits until no other command works on the container; some seconds at most, as one may hang.
pub(super) fn open_locked(host: &Host, id: &str) -> Result<Entry> {
    let entry = open(host, id)?;
    if entry.try_lock()? { entry.unless_deleted() } else { Err(entry.busy()) }
}

/// The same, but who works on the container for longer than that is killed. What it leaves is for the caller to remove.
pub(super) fn seize(host: &Host, id: &str) -> Result<Entry> {
    let entry = open(host, id)?;
    if !entry.try_lock()? {
        let Some(pid) = lock::holder(&entry.dir) else { return Err(entry.busy()) };
        log::warn(&format!("process {pid} has been working on container {id} for too long: it is killed"));
        lock::end_holder(&entry.dir, pid)?;
        if !entry.try_lock()? {
            return Err(entry.busy());
        }
    }
    entry.unless_deleted()
}

fn missing(id: &str) -> Error {
    Error::of(Cause::NotFound, format!("container does not exist: {id}"))
}

fn open_path(id: &str, path: PathBuf) -> Result<Entry> {
    let dir = rustix::fs::open(&path, DIRECTORY, Mode::empty());
    let dir = dir.context(|| format!("cannot open the state directory {}", path.display()))?;
    Ok(Entry { id: id.to_string(), path, dir })
}

/// The names of all containers, sorted.
pub(super) fn names(host: &Host) -> Result<Vec<String>> {
    let cannot = || format!("cannot read the state root {}", host.root.display());
    let dir = match std::fs::read_dir(&host.root) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !host.root_given => return Ok(Vec::new()),
        dir => dir.context(cannot)?,
    };
    let mut names = Vec::new();
    for entry in dir {
        let entry = entry.context(cannot)?;
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            names.extend(entry.file_name().into_string().ok().filter(|n| check_id(n).is_ok()));
        }
    }
    names.sort_unstable();
    Ok(names)
}

impl Entry {
    fn lock(&self) -> Result<()> {
        loop {
            match rustix::fs::flock(&self.dir, FlockOperation::LockExclusive) {
                Err(rustix::io::Errno::INTR) => {}
                done => return done.context(|| format!("cannot lock {}", self.path.display())),
            }
        }
    }

    /// Lets other commands work on the container.
    pub(super) fn unlock(&self) -> Result<()> {
        let done = rustix::fs::flock(&self.dir, FlockOperation::Unlock);
        done.context(|| format!("cannot unlock {}", self.path.display()))
    }

    /// Waits until no other command works on the container. False where it was deleted meanwhile.
    pub(super) fn lock_again(&self) -> Result<bool> {
        self.lock()?;
        Ok(self.is_there())
    }

    fn try_lock(&self) -> Result<bool> {
        lock::try_for(&self.dir, PATIENCE).context(|| self.path.display())
    }

    fn busy(&self) -> Error {
        let id = &self.id;
        let who = lock::holder(&self.dir).map_or_else(|| "another command".to_string(), |pid| format!("process {pid}"));
        let remedy = format!("`delete --force {id}` ends that and removes the container");
        Error::of(Cause::State, format!("container {id} is busy: {who} works on it ({remedy})"))
    }

    fn unless_deleted(self) -> Result<Entry> {
        if self.is_there() { Ok(self) } else { Err(missing(&self.id)) }
    }

    fn is_there(&self) -> bool {
        !rustix::fs::fstat(&self.dir).is_ok_and(|s| s.st_nlink == 0)
    }

    /// The directory.
    pub(super) fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    /// Reads the state. An entry without one belongs to a `create` that is under way or was killed.
    pub(super) fn state(&self) -> Result<State> {
        let text = match self.read("state.json") {
            Err(e) if e.errno() == libc::ENOENT => return Err(missing(&self.id)),
            text => text?,
        };
        serde_json::from_str(&text)
            .map_err(|e| Error::new(format!("{} is broken: {e}", self.path.join("state.json").display())))
    }

    /// The configuration as it was at create.
    pub(super) fn config(&self) -> Result<String> {
        self.read("config.json")
    }

    /// Keeps the configuration, under a name that [`Entry::claim_cgroup`] changes.
    pub(super) fn write_config(&self, text: &str) -> Result<()> {
        write(&self.dir, UNCLAIMED, text.as_bytes()).context(|| self.path.display())
    }

    /// Keeps the seccomp filter, which `exec` then need not compile. Where that fails it does.
    pub(super) fn keep_filter(&self, filter: &Filter) {
        let count = filter.program.len() / Filter::INSTRUCTION;
        let header = [filter.flags, u32::from(filter.notify), u32::try_from(count).unwrap_or_default()];
        let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.extend_from_slice(&filter.program);
        if let Err(e) = write(&self.dir, FILTER, &bytes) {
            log::debug(|| e);
        }
    }

    /// The seccomp filter that [`Entry::keep_filter`] has kept, if it is whole.
    pub(super) fn filter(&self) -> Option<Filter> {
        let mut bytes = Vec::new();
        self.open(FILTER).ok()?.read_to_end(&mut bytes).ok()?;
        let (header, program) = bytes.split_at_checked(12)?;
        let mut words = header.chunks_exact(4).filter_map(|b| b.try_into().ok()).map(u32::from_ne_bytes);
        let (flags, notify, count) = (words.next()?, words.next()?, words.next()?);
        let whole = count > 0 && program.len() == count as usize * Filter::INSTRUCTION;
        whole.then(|| Filter { program: program.to_vec(), flags, notify: notify != 0 })
    }

    /// Notes that the cgroup is this container's own. Until then the one at that path may be another's, whose processes
    /// no `delete --force` may end.
    pub(super) fn claim_cgroup(&self) -> Result<()> {
        rustix::fs::renameat(&self.dir, UNCLAIMED, &self.dir, "config.json").context(|| self.path.display())
    }

    /// Whether the cgroup is this container's own.
    pub(super) fn owns_cgroup(&self) -> bool {
        rustix::fs::statat(&self.dir, "config.json", AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Writes the state: a reader sees the old one or the new one.
    pub(super) fn write_state(&self, state: &State) -> Result<()> {
        self.stage_state(state)?;
        self.commit_state()
    }

    /// Writes a state that holds from [`Entry::commit_state`] on.
    pub(super) fn stage_state(&self, state: &State) -> Result<()> {
        let text = serde_json::to_vec(state).map_err(|e| Error::new(format!("state.json: {e}")))?;
        write(&self.dir, STAGED, &text).context(|| self.path.display())
    }

    /// The state, with what is known of init already where its creation goes on, or was cut off: to end it.
    pub(super) fn state_with_init(&self) -> Result<State> {
        let state = self.state()?;
        let staged = || serde_json::from_str(&self.read(STAGED).ok()?).ok();
        Ok(if state.init_process_pid == 0 { staged().unwrap_or(state) } else { state })
    }

    /// Makes the state hold that was written last.
    pub(super) fn commit_state(&self) -> Result<()> {
        let renamed = rustix::fs::renameat(&self.dir, STAGED, &self.dir, "state.json");
        renamed.context(|| format!("{}: cannot rename {STAGED} to state.json", self.path.display()))
    }

    /// Whether the start gate is there: the container was created and not started.
    pub(super) fn has_gate(&self) -> bool {
        rustix::fs::statat(&self.dir, gate::NAME, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Takes the start gate away.
    pub(super) fn remove_gate(&self) -> Result<()> {
        match rustix::fs::unlinkat(&self.dir, gate::NAME, AtFlags::empty()) {
            Err(rustix::io::Errno::NOENT) => Ok(()),
            done => done.context(|| format!("cannot remove {}", self.path.join(gate::NAME).display())),
        }
    }

    /// Makes the directory on which CRIU finds the root filesystem.
    pub(super) fn make_root(&self) -> Result<PathBuf> {
        let path = self.path.join(ROOT);
        match rustix::fs::mkdirat(&self.dir, ROOT, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(path),
            Err(e) => Err(e).context(|| format!("cannot make {}", path.display())),
        }
    }

    /// Takes it away. It is a mount point in other mount namespaces at most.
    pub(super) fn remove_root(&self) -> Result<()> {
        match rustix::fs::unlinkat(&self.dir, ROOT, AtFlags::REMOVEDIR) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(e) => Err(e).context(|| format!("cannot remove {}", self.path.join(ROOT).display())),
        }
    }

    /// Removes the directory with everything in it. Nothing in it comes from a container.
    pub(super) fn remove(&self) -> Result<()> {
        self.remove_root()?;
        for name in ["state.json", STAGED, "config.json", UNCLAIMED, FILTER, gate::NAME] {
            match rustix::fs::unlinkat(&self.dir, name, AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(e) => {
                    return Err(Error::from(e).context(format!("cannot remove {}", self.path.join(name).display())));
                }
            }
        }
        let removed = match rustix::fs::rmdir(&self.path) {
            Err(rustix::io::Errno::NOENT) => Ok(()),
            removed => removed,
        };
        removed.context(|| format!("cannot remove {}", self.path.display()))
    }

    fn read(&self, name: &str) -> Result<String> {
        let mut text = String::new();
        let read = self.open(name).and_then(|mut file| file.read_to_string(&mut text));
        read.context(|| format!("cannot read {}", self.path.join(name).display()))?;
        Ok(text)
    }

    fn open(&self, name: &str) -> std::io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.dir, name, flags, Mode::empty())?))
    }
}

fn write(dir: impl AsFd, name: &str, bytes: &[u8]) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600));
    let mut file = File::from(file.context(|| format!("cannot make {name}"))?);
    file.write_all(bytes).context(|| format!("cannot write {name}"))
}

/// Writes a pid file: decimal, no newline; whoever reads it sees all of it or none.
pub(super) fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let cannot = || format!("cannot write the pid file {}", path.display());
    let name =
        path.file_name().and_then(|n| n.to_str()).ok_or_else(|| Error::new("it names no file")).context(cannot)?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let dir = dir.context(cannot)?;
    let new = format!(".{name}.{}", std::process::id());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&dir, new.as_str(), flags, Mode::from_raw_mode(0o644)).context(cannot)?;
    File::from(file).write_all(pid.to_string().as_bytes()).context(cannot)?;
    rustix::fs::renameat(&dir, new.as_str(), &dir, name).context(cannot)
}

/// Takes a pid file back, of a process that has come to nothing.
pub(super) fn remove_pid_file(path: Option<&Path>) {
    // What fails here is not what went wrong, which is on its way to the user.
    let _ = path.map(std::fs::remove_file);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_containers() {
        for good in ["a", "A-b_c.d+e", "..."] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "ü", "a\n", &"x".repeat(256)] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }
}
