//! Mount options: what each name means to the kernel (config.md, "Linux mount options").
//!
//! One table serves the parser and `features`, so that neither can know an option that the other does not.

use oci_spec::runtime::Mount;

/// What an option asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Sets bits of mount(2)'s flags.
    Set(u64),
    /// Clears bits of mount(2)'s flags.
    Clear(u64),
    /// Changes the propagation of the mount, after it is there.
    Propagation(u64),
    /// Sets attributes on the mount and on everything below it (mount_setattr with AT_RECURSIVE).
    SetRecursive(u64),
    /// Clears attributes on the mount and on everything below it.
    ClearRecursive(u64),
    /// Maps the ids of the mount, and of everything below it where `recursive`.
    IdMap {
        /// Whether mounts below are mapped too.
        recursive: bool,
    },
    /// Copies what the image has at the destination into the new tmpfs.
    TmpCopyUp,
}

use Effect::{Clear, ClearRecursive, IdMap, Propagation, Set, SetRecursive, TmpCopyUp};
use libc::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_STRICTATIME,
};
use libc::{
    MS_BIND, MS_DIRSYNC, MS_I_VERSION, MS_LAZYTIME, MS_MANDLOCK, MS_NOATIME, MS_NODEV, MS_NODIRATIME, MS_NOEXEC,
    MS_NOSUID, MS_PRIVATE, MS_RDONLY, MS_REC, MS_RELATIME, MS_REMOUNT, MS_SHARED, MS_SILENT, MS_SLAVE, MS_STRICTATIME,
    MS_SYNCHRONOUS, MS_UNBINDABLE,
};

/// MS_NOSYMFOLLOW, which libc does not have.
pub const MS_NOSYMFOLLOW: u64 = 256;

/// Every option that is not data for the file system, in alphabetical order.
pub const TABLE: &[(&str, Effect)] = &[
    ("async", Clear(MS_SYNCHRONOUS)),
    ("atime", Clear(MS_NOATIME)),
    ("bind", Set(MS_BIND)),
    ("defaults", Set(0)),
    ("dev", Clear(MS_NODEV)),
    ("diratime", Clear(MS_NODIRATIME)),
    ("dirsync", Set(MS_DIRSYNC)),
    ("exec", Clear(MS_NOEXEC)),
    ("idmap", IdMap { recursive: false }),
    ("iversion", Set(MS_I_VERSION)),
    ("lazytime", Set(MS_LAZYTIME)),
    ("loud", Clear(MS_SILENT)),
    ("mand", Set(MS_MANDLOCK)),
    ("noatime", Set(MS_NOATIME)),
    ("nodev", Set(MS_NODEV)),
    ("nodiratime", Set(MS_NODIRATIME)),
    ("noexec", Set(MS_NOEXEC)),
    ("noiversion", Clear(MS_I_VERSION)),
    ("nolazytime", Clear(MS_LAZYTIME)),
    ("nomand", Clear(MS_MANDLOCK)),
    ("norelatime", Clear(MS_RELATIME)),
    ("nostrictatime", Clear(MS_STRICTATIME)),
    ("nosuid", Set(MS_NOSUID)),
    ("nosymfollow", Set(MS_NOSYMFOLLOW)),
    ("private", Propagation(MS_PRIVATE)),
    ("ratime", ClearRecursive(MOUNT_ATTR_NOATIME)),
    ("rbind", Set(MS_BIND | MS_REC)),
    ("rdev", ClearRecursive(MOUNT_ATTR_NODEV)),
    ("rdiratime", ClearRecursive(MOUNT_ATTR_NODIRATIME)),
    ("relatime", Set(MS_RELATIME)),
    ("remount", Set(MS_REMOUNT)),
    ("rexec", ClearRecursive(MOUNT_ATTR_NOEXEC)),
    ("ridmap", IdMap { recursive: true }),
    ("rnoatime", SetRecursive(MOUNT_ATTR_NOATIME)),
    ("rnodev", SetRecursive(MOUNT_ATTR_NODEV)),
    ("rnodiratime", SetRecursive(MOUNT_ATTR_NODIRATIME)),
    ("rnoexec", SetRecursive(MOUNT_ATTR_NOEXEC)),
    // relatime is the attribute's zero value: setting it clears the field, and there is nothing else to clear it to.
    ("rnorelatime", ClearRecursive(MOUNT_ATTR__ATIME)),
    ("rnostrictatime", ClearRecursive(MOUNT_ATTR_STRICTATIME)),
    ("rnosuid", SetRecursive(MOUNT_ATTR_NOSUID)),
    ("rnosymfollow", SetRecursive(MOUNT_ATTR_NOSYMFOLLOW)),
    ("ro", Set(MS_RDONLY)),
    ("rprivate", Propagation(MS_PRIVATE | MS_REC)),
    ("rrelatime", ClearRecursive(MOUNT_ATTR__ATIME)),
    ("rro", SetRecursive(MOUNT_ATTR_RDONLY)),
    ("rrw", ClearRecursive(MOUNT_ATTR_RDONLY)),
    ("rshared", Propagation(MS_SHARED | MS_REC)),
    ("rslave", Propagation(MS_SLAVE | MS_REC)),
    ("rstrictatime", SetRecursive(MOUNT_ATTR_STRICTATIME)),
    ("rsuid", ClearRecursive(MOUNT_ATTR_NOSUID)),
    ("rsymfollow", ClearRecursive(MOUNT_ATTR_NOSYMFOLLOW)),
    ("runbindable", Propagation(MS_UNBINDABLE | MS_REC)),
    ("rw", Clear(MS_RDONLY)),
    ("shared", Propagation(MS_SHARED)),
    ("silent", Set(MS_SILENT)),
    ("slave", Propagation(MS_SLAVE)),
    ("strictatime", Set(MS_STRICTATIME)),
    ("suid", Clear(MS_NOSUID)),
    ("symfollow", Clear(MS_NOSYMFOLLOW)),
    ("sync", Set(MS_SYNCHRONOUS)),
    ("tmpcopyup", TmpCopyUp),
    ("unbindable", Propagation(MS_UNBINDABLE)),
];

/// The meaning of an option; none where it is data for the file system.
pub fn effect(name: &str) -> Option<Effect> {
    TABLE.binary_search_by_key(&name, |(n, _)| n).ok().map(|i| TABLE[i].1)
}

/// The options of one mount, summed up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Flags of mount(2).
    pub flags: u64,
    /// Flags that an option asked to be off: a bind mount keeps its source's flags but for these.
    pub cleared: u64,
    /// Propagation changes, in the order given.
    pub propagation: Vec<u64>,
    /// Attributes to set on the whole tree.
    pub set_recursive: u64,
    /// Attributes to clear on the whole tree.
    pub clear_recursive: u64,
    /// Whether ids are mapped, and if so, whether below too.
    pub idmap: Option<bool>,
    /// Whether to copy up what the image has.
    pub tmpcopyup: bool,
    /// What the file system gets, joined by commas.
    pub data: String,
}

impl Options {
    /// Sums up the options of an entry of `mounts`. The type `bind` is one of them.
    pub fn of(mount: &Mount) -> Options {
        let mut options = Options::parse(mount.options().iter().flatten());
        if mount.typ().as_deref() == Some("bind") {
            options.flags |= MS_BIND;
        }
        options
    }

    /// Sums options up; of two that contradict each other, the later one holds, as with mount(8).
    pub fn parse<S: AsRef<str>>(options: impl IntoIterator<Item = S>) -> Options {
        let mut sum = Options::default();
        for option in options {
            let option = option.as_ref();
            match effect(option) {
                Some(Set(bits)) => {
                    sum.flags |= bits;
                    sum.cleared &= !bits;
                }
                Some(Clear(bits)) => {
                    sum.flags &= !bits;
                    sum.cleared |= bits;
                }
                Some(Propagation(bits)) => sum.propagation.push(bits),
                Some(SetRecursive(bits)) => {
                    if bits & MOUNT_ATTR__ATIME != 0 {
                        // The kernel takes a new atime mode only with the whole field cleared.
                        sum.set_recursive &= !MOUNT_ATTR__ATIME;
                        sum.clear_recursive |= MOUNT_ATTR__ATIME;
                    }
                    sum.set_recursive |= bits;
                    sum.clear_recursive &= !(bits & !MOUNT_ATTR__ATIME);
                }
                Some(ClearRecursive(bits)) => {
                    sum.set_recursive &= !bits;
                    sum.clear_recursive |= if bits & MOUNT_ATTR__ATIME != 0 { MOUNT_ATTR__ATIME } else { bits };
                }
                Some(IdMap { recursive }) => sum.idmap = Some(recursive),
                Some(TmpCopyUp) => sum.tmpcopyup = true,
                None => {
                    if !sum.data.is_empty() {
                        sum.data.push(',');
                    }
                    sum.data.push_str(option);
                }
            }
        }
        sum
    }

    /// Of a bind mount's data, the first option that is none: a bare word, which may be meant as a flag (`r0`), or a
    /// value for a name that takes none here (`ro=1`). The kernel takes no notice of options of a file system where the
    /// mount is not its first.
    pub fn unknown_to_binds(&self) -> Option<&str> {
        parameters(&self.data).find(|(key, value)| value.is_none() || effect(key).is_some()).map(|(key, _)| key)
    }
}

/// The options in a mount's data. A comma within double quotes, as in SELinux contexts, does not end one.
pub fn parameters(data: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let mut quoted = false;
    data.split(move |c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    })
    .filter(|option| !option.is_empty())
    .map(|option| match option.split_once('=') {
        Some((key, value)) => {
            let unquoted = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
            (key, Some(unquoted.unwrap_or(value)))
        }
        None => (option, None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(TABLE.is_sorted_by(|a, b| a.0 < b.0));
    }

    /// config.md: the options that a runtime MUST, SHOULD and MAY know.
    #[test]
    fn every_option_of_the_spec_is_known() {
        let must = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud noatime nodev nodiratime \
                    noexec noiversion nolazytime norelatime nostrictatime nosuid private rbind relatime remount ro \
                    rprivate rshared rslave runbindable rw shared silent slave strictatime suid sync unbindable";
        let should = "nosymfollow symfollow idmap ridmap rro rrw rnosuid rsuid rnodev rdev rnoexec rexec rnodiratime \
                      rdiratime rnoatime ratime rrelatime rnorelatime rstrictatime rnostrictatime rnosymfollow \
                      rsymfollow";
        for name in [must, should, "mand nomand tmpcopyup"].iter().flat_map(|s| s.split_whitespace()) {
            assert!(effect(name).is_some(), "{name}");
        }
    }

    #[test]
    fn the_later_of_two_opposites_holds() {
        let sum = Options::parse(["ro", "nosuid", "rw", "mode=755", "size=1k"]);
        assert_eq!((sum.flags, sum.cleared), (MS_NOSUID, MS_RDONLY));
        assert_eq!(sum.data, "mode=755,size=1k");
        let sum = Options::parse(["rrw", "rro"]);
        assert_eq!((sum.set_recursive, sum.clear_recursive), (MOUNT_ATTR_RDONLY, 0));
    }

    #[test]
    fn data_is_split_at_commas_outside_quotes() {
        let data = "mode=755,,newinstance,context=\"u:o:t:s0:c1,c2\",size=1k";
        let got: Vec<_> = parameters(data).collect();
        let want =
            [("mode", Some("755")), ("newinstance", None), ("context", Some("u:o:t:s0:c1,c2")), ("size", Some("1k"))];
        assert_eq!(got, want);
    }

    #[test]
    fn binds_take_only_options_with_values() {
        for (options, want) in [
            (vec!["mode=755", "size=1k", "ro"], None),
            (vec!["mode=755,size=1k"], None),
            (vec!["mode=755", "r0"], Some("r0")),
            (vec!["size=1k,ro"], Some("ro")),
            (vec!["ro=1"], Some("ro")),
            (vec!["idmap=uids=0-1-1"], Some("idmap")),
        ] {
            assert_eq!(Options::parse(&options).unknown_to_binds(), want, "{options:?}");
        }
    }

    #[test]
    fn a_new_atime_mode_replaces_the_whole_field() {
        let sum = Options::parse(["rstrictatime", "rnoatime"]);
        assert_eq!((sum.set_recursive, sum.clear_recursive), (MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME));
        assert_eq!(Options::parse(["rnoatime", "rrelatime"]).set_recursive, 0);
    }
}
