//! The messages of CRIU's RPC, as far as vessel needs them; names and numbers are those of CRIU's rpc.proto.

/// criu_req_type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Kind {
    Empty = 0,
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
    FeatureCheck = 9,
    Version = 10,
}

/// criu_req.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Request {
    #[prost(enumeration = "Kind", required, tag = "1")]
    pub(super) kind: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) opts: Option<Options>,
    #[prost(bool, optional, tag = "3")]
    pub(super) notify_success: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    pub(super) keep_open: Option<bool>,
    #[prost(message, optional, tag = "5")]
    pub(super) features: Option<Features>,
}

/// criu_resp.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Response {
    #[prost(enumeration = "Kind", required, tag = "1")]
    pub(super) kind: i32,
    #[prost(bool, required, tag = "2")]
    pub(super) success: bool,
    #[prost(message, optional, tag = "4")]
    pub(super) restore: Option<Restored>,
    #[prost(message, optional, tag = "5")]
    pub(super) notify: Option<Notify>,
    #[prost(int32, optional, tag = "7")]
    pub(super) errno: Option<i32>,
    #[prost(message, optional, tag = "8")]
    pub(super) features: Option<Features>,
    #[prost(string, optional, tag = "9")]
    pub(super) message: Option<String>,
    #[prost(message, optional, tag = "10")]
    pub(super) version: Option<Version>,
}

/// criu_restore_resp.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Restored {
    #[prost(int32, required, tag = "1")]
    pub(super) pid: i32,
}

/// criu_notify.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Notify {
    #[prost(string, optional, tag = "1")]
    pub(super) script: Option<String>,
    #[prost(int32, optional, tag = "2")]
    pub(super) pid: Option<i32>,
}

/// criu_features: what the kernel has that CRIU can make use of.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Features {
    /// Tracking of changed memory.
    #[prost(bool, optional, tag = "1")]
    pub mem_track: Option<bool>,
    /// Pages on demand, by userfaultfd(2).
    #[prost(bool, optional, tag = "2")]
    pub lazy_pages: Option<bool>,
}

/// criu_version.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Version {
    #[prost(int32, required, tag = "1")]
    pub(super) major: i32,
    #[prost(int32, required, tag = "2")]
    pub(super) minor: i32,
    #[prost(int32, optional, tag = "4")]
    pub(super) sublevel: Option<i32>,
}

/// criu_cg_mode: what CRIU does about cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum CgroupMode {
    /// Nothing.
    Ignore = 0,
    /// Restores properties of cgroups that it has to make.
    Soft = 3,
    /// Restores properties of all cgroups.
    Full = 4,
    /// Fails where it finds a cgroup that it would make.
    Strict = 5,
    /// What CRIU takes by itself: soft.
    Default = 6,
}

/// criu_opts. Descriptors are numbers of this process, but for those to inherit, which are CRIU's own.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(missing_docs)]
pub struct Options {
    #[prost(int32, required, tag = "1")]
    pub images_dir_fd: i32,
    #[prost(int32, optional, tag = "2")]
    pub pid: Option<i32>,
    #[prost(bool, optional, tag = "3")]
    pub leave_running: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    pub ext_unix_sk: Option<bool>,
    #[prost(bool, optional, tag = "5")]
    pub tcp_established: Option<bool>,
    #[prost(bool, optional, tag = "6")]
    pub evasive_devices: Option<bool>,
    #[prost(bool, optional, tag = "7")]
    pub shell_job: Option<bool>,
    #[prost(bool, optional, tag = "8")]
    pub file_locks: Option<bool>,
    #[prost(int32, optional, tag = "9")]
    pub log_level: Option<i32>,
    #[prost(string, optional, tag = "10")]
    pub log_file: Option<String>,
    #[prost(message, optional, tag = "11")]
    pub page_server: Option<PageServer>,
    #[prost(bool, optional, tag = "12")]
    pub notify_scripts: Option<bool>,
    #[prost(string, optional, tag = "13")]
    pub root: Option<String>,
    #[prost(string, optional, tag = "14")]
    pub parent_img: Option<String>,
    #[prost(bool, optional, tag = "15")]
    pub track_mem: Option<bool>,
    #[prost(bool, optional, tag = "16")]
    pub auto_dedup: Option<bool>,
    #[prost(int32, optional, tag = "17")]
    pub work_dir_fd: Option<i32>,
    #[prost(bool, optional, tag = "18")]
    pub link_remap: Option<bool>,
    #[prost(message, repeated, tag = "23")]
    pub ext_mnt: Vec<ExternalMount>,
    #[prost(bool, optional, tag = "24")]
    pub manage_cgroups: Option<bool>,
    #[prost(message, repeated, tag = "25")]
    pub cg_root: Vec<CgroupRoot>,
    #[prost(bool, optional, tag = "26")]
    pub rst_sibling: Option<bool>,
    #[prost(message, repeated, tag = "27")]
    pub inherit_fd: Vec<InheritFd>,
    #[prost(enumeration = "CgroupMode", optional, tag = "34")]
    pub manage_cgroups_mode: Option<i32>,
    #[prost(string, repeated, tag = "37")]
    pub external: Vec<String>,
    #[prost(uint32, optional, tag = "38")]
    pub empty_ns: Option<u32>,
    #[prost(message, repeated, tag = "39")]
    pub join_ns: Vec<JoinNamespace>,
    #[prost(string, optional, tag = "44")]
    pub freeze_cgroup: Option<String>,
    #[prost(bool, optional, tag = "46")]
    pub tcp_skip_in_flight: Option<bool>,
    #[prost(bool, optional, tag = "48")]
    pub lazy_pages: Option<bool>,
    #[prost(bool, optional, tag = "50")]
    pub orphan_pts_master: Option<bool>,
    #[prost(string, optional, tag = "51")]
    pub config_file: Option<String>,
    #[prost(bool, optional, tag = "52")]
    pub tcp_close: Option<bool>,
    #[prost(string, optional, tag = "53")]
    pub lsm_profile: Option<String>,
    #[prost(string, optional, tag = "63")]
    pub lsm_mount_context: Option<String>,
}

/// criu_page_server_info: where the pages go.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PageServer {
    /// A host.
    #[prost(string, optional, tag = "1")]
    pub address: Option<String>,
    /// A port.
    #[prost(int32, optional, tag = "2")]
    pub port: Option<i32>,
}

/// ext_mount_map: a mount that is not saved. On dump, its place in the container and a name; on restore, the name and
/// the host's path that is bound there.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExternalMount {
    /// The place, or the name.
    #[prost(string, required, tag = "1")]
    pub key: String,
    /// The name, or the source.
    #[prost(string, required, tag = "2")]
    pub val: String,
}

/// cgroup_root: where the processes' cgroups begin.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CgroupRoot {
    /// A controller of v1; none or empty: v2.
    #[prost(string, optional, tag = "1")]
    pub ctrl: Option<String>,
    /// The path in the hierarchy.
    #[prost(string, required, tag = "2")]
    pub path: String,
}

/// inherit_fd: an open file that takes the place of a saved one.
#[derive(Clone, PartialEq, prost::Message)]
pub struct InheritFd {
    /// The saved one's name, as `pipe:[123]`.
    #[prost(string, required, tag = "1")]
    pub key: String,
    /// CRIU's number for it.
    #[prost(int32, required, tag = "2")]
    pub fd: i32,
}

/// join_namespace: a namespace that is there already.
#[derive(Clone, PartialEq, prost::Message)]
pub struct JoinNamespace {
    /// Its kind, as in /proc/PID/ns.
    #[prost(string, required, tag = "1")]
    pub ns: String,
    /// Its path.
    #[prost(string, required, tag = "2")]
    pub ns_file: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn messages_have_the_bytes_that_criu_reads() {
        let request = Request { kind: Kind::Version.into(), keep_open: Some(true), ..Request::default() };
        assert_eq!(request.encode_to_vec(), [0x08, 10, 0x20, 1]);
        let opts = Options {
            images_dir_fd: 5,
            inherit_fd: vec![InheritFd { key: "a".into(), fd: 4 }],
            lsm_mount_context: Some("c".into()),
            ..Options::default()
        };
        assert_eq!(opts.encode_to_vec(), [0x08, 5, 0xda, 1, 5, 0x0a, 1, b'a', 0x10, 4, 0xfa, 3, 1, b'c']);
        // What a newer CRIU adds is passed over.
        let bytes = [0x08, 10, 0x10, 1, 0x52, 6, 0x08, 4, 0x10, 1, 0x20, 1, 0xa0, 0x06, 7];
        let response = Response::decode(&bytes[..]).unwrap();
        assert_eq!(response.version, Some(Version { major: 4, minor: 1, sublevel: Some(1) }));
    }
}
