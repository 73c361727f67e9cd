//! podman of an ordinary user where nothing is made ready for one: cgroup v1, no systemd, no session, no subordinate ids.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use super::{Engine, TERMINAL, on_terminal};
use crate::harness::{Cmd, Need, User, eventually};
use crate::{deviates, needs};

/// The first of her subordinate ids, and how many she has.
const SUBIDS: (u32, u32) = (200_000, 65536);

/// The files that say who she is and which ids are hers. A command sees them in a mount namespace of its own.
const FILES: [&str; 3] = ["passwd", "subuid", "subgid"];

impl Engine {
    /// podman of an ordinary user who is not known to the machine, with everything of hers in the test's directory.
    fn unprepared() -> Engine {
        let mut engine = Engine::podman();
        let user = User { uid: 54321, gid: 54321, name: Some("stranger".into()) };
        let dir = engine.c.path("etc");
        fs::create_dir(&dir).unwrap();
        let passwd = "root:x:0:0:root:/root:/bin/sh\nstranger:x:54321:54321::/:/bin/sh\n".to_owned();
        let ids = format!("stranger:{}:{}\n", SUBIDS.0, SUBIDS.1);
        for (name, text) in FILES.iter().zip([&passwd, &ids, &ids]) {
            fs::write(dir.join(name), text).unwrap();
        }
        fs::create_dir(engine.c.path("home")).unwrap();
        engine.c.own(&user);
        // She could make up who she is.
        for path in FILES.iter().map(|name| dir.join(name)).chain([dir.clone()]) {
            chown(path, Some(0), Some(0)).unwrap();
        }
        let session = engine.short.join("session");
        fs::create_dir(&session).unwrap();
        fs::set_permissions(&session, fs::Permissions::from_mode(0o700)).unwrap();
        chown(&engine.short, Some(user.uid), Some(user.gid)).unwrap();
        chown(&session, Some(user.uid), Some(user.gid)).unwrap();
        engine.user = Some(user);
        engine.files = Some(dir);
        engine
    }
}

/// podman as a user who is known by these files only.
pub(super) fn podman(files: &Path, user: &User) -> Cmd {
    let binds: Vec<_> = FILES.iter().map(|name| format!("mount --bind \"$0/{name}\" /etc/{name}")).collect();
    let script = format!("{} && exec setpriv \"$@\"", binds.join(" && "));
    let cmd = Cmd::new("unshare").args(["--mount", "sh", "-c", &script]).arg(files);
    cmd.args(["--reuid", &user.uid.to_string(), "--regid", &user.gid.to_string(), "--clear-groups", "podman"])
}

macro_rules! needs_v1 {
    () => {
        deviates!("crun", "does not run where there is cgroup v2 too");
        needs!(
            Need::CgroupV1,
            Need::Program("podman"),
            Need::Program("newuidmap"),
            Need::Program("setpriv"),
            Need::File("/etc/subuid"),
            Need::File("/etc/subgid")
        );
    };
}

#[test]
fn podman_of_a_stranger_hands_on_output_and_exit_codes() {
    needs_v1!();
    let podman = Engine::unprepared();
    let out = podman.run(&["--rm"], &["echo", "hello", "--", "ids", "--", "cat", "/proc/self/uid_map"]).run().ok();
    let map: Vec<_> = out.stdout.split_whitespace().rev().take(6).collect();
    assert_eq!(map, ["65536", "200000", "1", "1", "54321", "0"], "{out}");
    out.line("hello").line("uid 0");
    podman.run(&["--rm"], &["echo", "failed", "--", "exit", "1"]).run().exits(1).line("failed");
    let mut killed = podman.run(&["--rm", "--name", "one"], &["trap"]).spawn();
    killed.wait_for("ready");
    podman.act(&["kill", "one"]).ok();
    killed.wait().exits(137);
    podman.run(&["--rm", "-i"], &["stdin"]).stdin("words").run().ok().line("stdin words");
    on_terminal(podman.run(&["--rm", "-it"], &TERMINAL));
    podman.run(&["--rm", "--no-such-flag"], &["echo"]).run().exits(125);
    let program = |name: &str| {
        let cmd = podman.cmd(&["run", "--rm", "--network", "none"]).args(super::LIMITS).arg("--rootfs");
        cmd.arg(podman.c.rootfs()).arg(name).run()
    };
    program("/etc/passwd").exits(126);
    program("/nosuch").exits(127);
}

#[test]
fn podman_of_a_stranger_gives_what_its_flags_ask_for() {
    needs_v1!();
    let podman = Engine::unprepared();
    // Old versions of runc give a tmpfs the mode of the directory, whatever is asked for.
    fs::set_permissions(podman.c.rootfs().join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    podman.import();
    let profile = podman.c.path("profile.json");
    let rule = r#"[{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}]"#;
    fs::write(&profile, format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {rule}}}"#)).unwrap();
    let seccomp = format!("seccomp={}", profile.display());
    let volume = format!("{}:/run", podman.c.path("home").display());
    let flags = "--rm --read-only --user 5:6 --cap-drop all --tmpfs /tmp:mode=1777 --hostname box --volume";
    let flags: Vec<_> = flags.split(' ').chain([&volume, "--security-opt", &seccomp, "image"]).collect();
    let probe = "ids -- caps -- hostname -- try-write /x -- try-write /tmp/x -- open /dev/null rw -- mkdir /tmp/d";
    let out = podman.run(&flags, &probe.split(' ').collect::<Vec<_>>()).run().exits(1);
    let out = out.line("uid 5").line("gid 6").line("hostname box").line("Seccomp 2").line("open ok 0");
    let out = out.line("CapBnd 0000000000000000").line("CapEff 0000000000000000").line("error EIO mkdir /tmp/d");
    assert_eq!(out.values("write"), ["EROFS", "ok 0"], "{out}");

    // Root of the container is she herself, and the others are her subordinates.
    let owner = |user: &str, name: &str| {
        let path = format!("/run/{name}");
        podman.run(&["--rm", "--volume", &volume, "--user", user, "image"], &["write", &path, "x"]).run().ok();
        fs::metadata(podman.c.path("home").join(name)).unwrap().uid()
    };
    assert_eq!(owner("0:0", "own"), 54321);
    fs::set_permissions(podman.c.path("home"), fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(owner("5:6", "other"), SUBIDS.0 + 4);
}

#[test]
fn podman_of_a_stranger_takes_a_container_through_its_life() {
    needs_v1!();
    let podman = Engine::unprepared();
    podman.import();
    podman.run(&["-d", "--name", "one", "image"], &["trap", "HUP", "TERM"]).run().ok();
    podman.act(&["exec", "-u", "3:4", "one", "/probe", "ids", "--", "exit", "9"]).exits(9).line("uid 3").line("gid 4");
    podman.act(&["exec", "one", "/nosuch"]).exits(127);
    podman.act(&["exec", "one", "/etc/passwd"]).exits(126);
    on_terminal(podman.cmd(&["exec", "-it", "one", "/probe"]).args(TERMINAL));
    let top = podman.act(&["top", "one", "pid,args"]).ok();
    assert!(top.stdout.contains("trap HUP TERM"), "{top}");
    // On v1 only root may freeze.
    podman.act(&["pause", "one"]).exits(125).fails("can not pause containers on rootless containers with cgroup V1");
    podman.act(&["kill", "--signal", "HUP", "one"]).ok();
    podman.act(&["stop", "--time", "20", "one"]).ok();
    let logs = podman.act(&["logs", "one"]).ok();
    assert_eq!(logs.stdout.lines().collect::<Vec<_>>(), ["ready", "signal HUP", "signal TERM"], "{logs}");
    podman.act(&["start", "one"]).ok();
    podman.act(&["kill", "one"]).ok();
    assert_eq!(podman.act(&["wait", "one"]).ok().stdout, "137\n");
    podman.act(&["start", "one"]).ok();
    podman.act(&["rm", "--force", "--time", "0", "one"]).ok();
    assert_eq!(podman.act(&["ps", "--all", "--quiet"]).ok().stdout, "");
    // Nor may she limit anything.
    let out = podman.run(&["--rm", "--memory", "64m", "image"], &["echo", "ran"]).run().ok().line("ran");
    assert!(out.stderr.contains("Resource limits are not supported and ignored on cgroups V1 rootless"), "{out}");
    eventually("the end of the container", || podman.c.left().iter().all(|l| !l.contains("/probe")).then_some(()));
}
