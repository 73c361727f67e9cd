//! The command line.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::{Cmd, Container, Need, User, runtime, runtime_kind};
use crate::{deviates, needs};

fn bare(args: &[&str]) -> Cmd {
    Cmd::new(runtime()).args(args)
}

#[test]
fn the_version_has_the_lines_that_engines_look_for() {
    let out = bare(&["--version"]).run().ok();
    assert!(out.stdout.lines().next().unwrap().contains("version "), "{out}");
    assert!(out.stdout.lines().any(|l| l.starts_with("commit: ")), "{out}");
    assert!(out.stdout.lines().any(|l| l.starts_with("spec: 1.")), "{out}");
}

#[test]
fn spec_writes_a_config_and_never_overwrites_one() {
    deviates!("crun", "words its error in its own way");
    let c = Container::new(["echo"]);
    fs::create_dir(c.path("empty")).unwrap();
    c.command("spec", ["--bundle"]).arg(c.path("empty")).run().ok();
    let path = c.path("empty/config.json");
    let written = fs::read_to_string(&path).unwrap();
    let config: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert_eq!(config["root"]["path"], "rootfs");

    let again = c.command("spec", ["--bundle"]).arg(c.path("empty")).run().exits(1);
    again.fails("File config.json exists. Remove it first");
    assert_eq!(fs::read_to_string(&path).unwrap(), written);
}

#[test]
fn a_failure_is_one_json_object_in_the_log() {
    let c = Container::new(["echo"]);
    let log = c.path("log.json");
    // With one dash, as some engines have it.
    let flags = ["-log", log.to_str().unwrap(), "-log-format", "json", "state", "missing"];
    deviates!("crun", "takes no long flag with one dash");
    c.runtime().args(flags).run().exits(1);
    let written = fs::read_to_string(&log).unwrap();
    assert_eq!(written.lines().count(), 1, "{written}");
    let line: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("does not exist"), "{line}");
    assert!(line["time"].as_str().unwrap().contains('T'));
}

#[test]
fn the_log_can_be_that_of_the_machine() {
    needs!(Need::Systemd);
    deviates!("runc", "logs to files");
    for kind in ["journald", "syslog"] {
        let name = format!("vessel-test-{kind}-{}", std::process::id());
        let log = format!("--log={kind}:{name}");
        let out = bare(&[&log, "state", "nobody"]).run().exits(1);
        assert_eq!(out.stderr, "container does not exist: nobody\n");
        let read = || {
            let out = Cmd::new("journalctl").args(["-q", "-o", "json", "-t", &name]).run().ok();
            (!out.stdout.is_empty()).then(|| serde_json::from_str::<serde_json::Value>(out.stdout.trim()).unwrap())
        };
        let line = crate::harness::eventually("the line in the journal", read);
        assert!(line["MESSAGE"].as_str().unwrap().contains("container does not exist: nobody"), "{line}");
        assert_eq!(line["PRIORITY"], "3");
    }
    bare(&["--log=journald:", "state", "nobody"]).run().exits(1).fails("is no name that a log daemon takes");
}

#[test]
fn a_log_may_be_named_as_a_file() {
    deviates!("runc", "takes the whole for the path");
    let c = Container::new(["echo"]);
    let log = c.path("a.log");
    c.runtime().arg(format!("--log=file:{}", log.display())).args(["state", "missing"]).run().exits(1);
    assert!(fs::read_to_string(&log).unwrap().contains("does not exist"));
}

#[test]
fn an_unknown_command_or_flag_is_an_error() {
    deviates!("crun", "words its error in its own way");
    deviates!("runc", "ends with another code");
    bare(&["foo"]).run().exits(1).fails("No help topic for 'foo'");
    bare(&["spec", "--no-such-flag"]).run().exits(1);
}

#[test]
fn every_command_has_a_help_in_the_layout_of_runc() {
    deviates!("crun", "has a layout of its own");
    let commands = ["create", "delete", "exec", "features", "kill", "list", "pause", "ps", "resume", "run", "spec"];
    for command in commands.iter().chain(&["start", "state"]) {
        for flag in ["-h", "--help"] {
            let out = bare(&[command, flag]).run().ok();
            let mut lines = out.stdout.lines();
            assert_eq!(lines.next(), Some("NAME:"), "{out}");
            assert!(lines.next().unwrap().contains(&format!(" {command} - ")), "{out}");
            assert_eq!(out.stderr, "");
        }
    }
    for args in [&["--help"][..], &["-h"], &[]] {
        let out = bare(args).run().ok();
        assert!(
            out.stdout.starts_with("NAME:\n") && out.stdout.contains(" - Open Container Initiative runtime"),
            "{out}"
        );
    }
}

#[test]
fn installed_as_runc_it_answers_to_the_name() {
    deviates!("runc", "is it");
    deviates!("crun", "has one name");
    let runc = |args: &[&str]| bare(args).called("/usr/sbin/runc").run();
    let version = runc(&["--version"]).ok().stdout;
    let lines: Vec<_> = version.lines().collect();
    let number = lines[0].strip_prefix("runc version ").unwrap();
    assert!(number.starts_with(|c: char| c.is_ascii_digit()), "{version}");
    assert!(lines[1].starts_with("commit: ") && lines[2].starts_with("spec: 1."), "{version}");
    // What it is remains to be seen, without the word by which engines find the line.
    assert_eq!(lines[3..], [format!("vessel: {number}")]);

    let help = runc(&["--help"]).ok().stdout;
    assert!(help.starts_with("NAME:\n   runc - Open Container Initiative runtime\n\nThis is vessel "), "{help}");
    let help = runc(&["create", "--help"]).ok().stdout;
    assert!(help.starts_with("NAME:\n   runc create - ") && help.contains("USAGE:\n   runc create "), "{help}");
    runc(&["start"]).exits(1).fails(r#"runc: \"start\" requires exactly 1 argument(s)"#);
    runc(&["--no-such"]).exits(1).fails("(see runc --help)");
}

#[test]
fn installed_as_runc_it_words_failures_as_runc() {
    deviates!("runc", "has quotes and paths of its own in them");
    deviates!("crun", "has one name");
    let inside = "unable to start container process: error during container init";
    let mut c = Container::new(["echo"]);
    let run = |c: &Container| c.run_cmd().called("runc").run().exits(1);
    let bind = serde_json::json!({"destination": "/x", "type": "bind", "source": "/no/such", "options": ["bind"]});
    c.edit(|config| config["mounts"].as_array_mut().unwrap().push(bind));
    run(&c).fails(&format!("\"runc run failed: {inside}: error mounting: mounts["));
    c.edit(|config| {
        config["mounts"].as_array_mut().unwrap().pop();
    });
    c.edit(|config| config["process"]["args"] = serde_json::json!(["no-such-program"]));
    run(&c).fails(&format!("\"runc run failed: {inside}: "));
    c.create_with(c.create_cmd().called("runc")).fails(&format!("\"runc create failed: {inside}: "));

    c.edit(|config| config["process"]["args"] = serde_json::json!(["/script"]));
    let script = c.rootfs().join("script");
    fs::write(&script, "#!/no/interpreter\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let (words, reason) = ("exec /script: no such file or directory", "(its interpreter /no/interpreter is not there)");
    // That is no terminal.
    assert_eq!(run(&c).stderr, format!("{words}\n"));
    c.run_cmd().run().exits(1).fails(&format!("level=error msg=\"{words} {reason}\""));
    // An engine gets the whole.
    let log = c.path("log");
    c.global(&["--log", log.to_str().unwrap()]);
    assert_eq!(run(&c).stderr, format!("{words} {reason}\n"));
    assert!(fs::read_to_string(&log).unwrap().contains(reason));
    c.finish();
}

#[test]
fn the_debug_log_has_the_flags_of_the_filter() {
    deviates!("crun", "does not log them");
    let mut c = Container::new(["echo", "hello"]);
    c.global(&["--debug"]);
    let profile = |flags: serde_json::Value| serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags});
    for (flags, number) in [(serde_json::json!([]), 0), (serde_json::json!(["SECCOMP_FILTER_FLAG_LOG"]), 2)] {
        c.edit(|config| config["linux"]["seccomp"] = profile(flags.clone()));
        let out = c.run().ok();
        assert!(out.stderr.contains(&format!("msg=\"seccomp filter flags: {number}\"")), "{out}");
        assert_eq!(out.stdout, "hello\n");
    }
}

#[test]
fn completions_know_commands_and_flags() {
    deviates!("runc", "has no such command");
    deviates!("crun", "has no such command");
    let complete = |line: &str, word: usize| {
        let runtime = runtime();
        let script = format!(
            "source <({} completion bash); COMP_WORDS=({line}); COMP_CWORD={word}; \
             _vessel vessel \"${{COMP_WORDS[{word}]}}\"; echo ${{COMPREPLY[@]}}",
            runtime.display()
        );
        let out = Cmd::new("bash").args(["-c", &script]).run().ok();
        out.stdout.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete("vessel upd", 1), ["update"]);
    assert_eq!(complete("vessel delete --fo", 2), ["--force"]);
    for shell in ["zsh", "fish"] {
        let out = bare(&["completion", shell]).run().ok();
        assert!(out.stdout.contains("console-socket"), "{out}");
    }
    bare(&["completion", "csh"]).run().exits(1).fails("(bash, zsh and fish are known)");
}

#[test]
fn a_wrong_number_of_arguments_shows_the_help_on_standard_output() {
    deviates!("crun", "words its error in its own way");
    for (args, fault) in [
        (&["start"][..], "\"start\" requires exactly 1 argument(s)"),
        (&["start", "a", "b"], "\"start\" requires exactly 1 argument(s)"),
        (&["kill"], "\"kill\" requires a minimum of 1 argument(s)"),
        (&["kill", "a", "TERM", "b"], "\"kill\" requires a maximum of 2 argument(s)"),
        (&["exec"], "\"exec\" requires a minimum of 1 argument(s)"),
        (&["list", "a"], "\"list\" requires exactly 0 argument(s)"),
    ] {
        let out = bare(args).run().exits(1);
        assert!(out.stdout.starts_with("Incorrect Usage.\n\n"), "{out}");
        // The text format of a log quotes it.
        assert!(out.stderr.replace('\\', "").contains(fault), "{out}");
        // runc's own help is empty in some versions.
        assert!(out.stdout.contains("\n\nNAME:\n") || runtime_kind() == "runc", "{out}");
    }
}

#[test]
fn a_flag_without_its_value_is_told_in_the_words_that_podman_matches() {
    deviates!("crun", "has other words");
    bare(&["create", "--bundle"]).run().exits(1).fails("flag needs an argument");
}

#[test]
fn repeated_global_flags_are_taken_and_the_last_one_holds() {
    deviates!("crun", "takes flags only as they are named");
    let c = Container::new(["echo"]);
    fs::create_dir_all(c.root()).unwrap();
    let root = c.root();
    let root = root.to_str().unwrap();
    // conmon-rs gives some of them twice.
    let out = bare(&["--root", "/proc/nowhere", "--systemd-cgroup=false", "--root", root, "list", "-q"]).run();
    assert_eq!((out.code, out.stdout.as_str()), (0, ""), "{out}");
}

#[test]
fn the_root_directory_is_no_state_root() {
    deviates!("crun", "takes it");
    deviates!("runc" before 1.5, "takes it");
    bare(&["--root", "/", "list"]).run().exits(1).fails("Option --root argument should not be set to /");
}

#[test]
fn no_container_is_no_line_and_null() {
    let c = Container::new(["echo"]);
    fs::create_dir_all(c.root()).unwrap();
    deviates!("crun", "has other columns, and an empty array");
    let head = "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n";
    assert_eq!(c.command("list", [""; 0]).run().ok().stdout, head);
    assert_eq!(c.command("list", ["--format", "json"]).run().ok().stdout, "null\n");
    c.command("list", ["-f", "xml"]).run().exits(1).fails("invalid format option");
    // A root that was asked for must be there.
    deviates!("runc" before 1.2, "makes it");
    bare(&["--root"]).arg(c.path("missing")).arg("list").run().exits(1).fails("no such file or directory");
}

#[test]
fn operations_on_a_missing_container_say_so() {
    deviates!("crun", "has other words");
    let c = Container::new(["echo"]);
    for command in ["start", "state", "kill", "delete", "pause", "resume", "ps"] {
        c.command(command, ["missing"]).run().exits(1).fails("does not exist");
    }
    c.command("delete", ["--force", "missing"]).run().ok();
    c.command("exec", ["missing", "true"]).run().exits(255).fails("exec failed: ");
}

#[test]
fn signals_and_users_that_mean_nothing_are_refused() {
    let c = Container::new(["sleep"]);
    c.started();
    deviates!("crun", "words its error in its own way");
    c.kill("FOO").exits(1).fails("unknown signal");
    for user in ["root", "1x", "+1", "-1", ":5", "1:", "1:wheel", "4294967296", " 1"] {
        deviates!("runc", "takes +1 and -1 as numbers");
        c.exec_cmd(&["--user", user], ["echo"]).run().exits(255).fails("exec failed: --user: ");
    }
    c.exec_cmd(&["--user", "1:2"], ["echo", "hi"]).run().ok().line("hi");
}

#[test]
fn the_arguments_of_the_program_are_not_the_runtimes() {
    let c = Container::new(["sleep"]);
    c.started();
    for args in [&["echo", "-d", "--user", "-root"][..], &["echo", "--help"]] {
        c.exec(args).ok().line(&args[1..].join(" "));
    }
}

#[test]
fn features_are_one_document_and_nothing_else() {
    let out = bare(&["features"]).run().ok();
    assert_eq!(out.stderr, "");
    let features = out.json();
    assert!(features["ociVersionMin"].as_str().unwrap().starts_with("1.0"), "{features}");
    for option in ["ro", "rbind", "rro", "tmpcopyup"] {
        assert!(features["mountOptions"].as_array().unwrap().contains(&option.into()), "{option}");
    }
    let linux = &features["linux"];
    for (list, name) in [("namespaces", "user"), ("capabilities", "CAP_SYS_ADMIN")] {
        assert!(linux[list].as_array().unwrap().contains(&name.into()), "{list}");
    }
    assert_eq!(linux["seccomp"]["enabled"], true);
}

#[test]
fn debug_lines_are_beside_the_one_error() {
    let c = Container::new(["echo"]);
    let out = c.runtime().args(["--debug", "state", "missing"]).run().exits(1);
    deviates!("crun", "has a format of its own");
    deviates!("runc", "says nothing before this error");
    assert!(out.stderr.contains("level=debug"), "{out}");
    assert_eq!(out.stderr.matches("level=error").count(), 1, "{out}");
}

#[test]
fn an_ordinary_user_has_a_state_root_of_her_own() {
    deviates!("runc", "names the directory after itself");
    deviates!("crun", "names the directory after itself");
    let c = Container::rootless(["echo"]);
    let user = User::ordinary();
    fs::create_dir(c.path("xdg")).unwrap();
    std::os::unix::fs::chown(c.path("xdg"), Some(user.uid), Some(user.gid)).unwrap();
    let as_user = |args: &[&str]| bare(args).user(&user).env("XDG_RUNTIME_DIR", c.path("xdg"));
    assert_eq!(as_user(&["list", "-q"]).run().ok().stdout, "");
    as_user(&["create", "--bundle", "/missing", "x"]).run().exits(1);
    // The sticky bit keeps it from being cleaned away with what is old in that directory.
    let mode = fs::metadata(c.path("xdg/vessel")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o1700);
}

#[test]
fn timings_tell_the_phases_of_all_commands_of_a_life() {
    deviates!("runc", "has no such flag");
    deviates!("crun", "has no such flag");
    let mut c = Container::new(["sleep"]);
    let (trace, table) = (c.path("trace.json"), c.path("table"));
    c.global(&["--timings", trace.to_str().unwrap()]);
    c.started();
    c.exec(["echo", "there"]).ok();
    c.global(&["--timings", table.to_str().unwrap()]);
    c.command("delete", ["--force"]).arg(&c.id).run().ok();

    // As browsers read it, the end may be missing.
    let text = fs::read_to_string(&trace).unwrap();
    let text = format!("{}]", text.trim_end().trim_end_matches(','));
    let events: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let has =
        |name: &str, thread: u32| events.iter().any(|e| e["name"] == name && e["tid"] == thread && e["ph"] == "X");
    for (name, thread) in [("cgroup", 0), ("mounts", 1), ("until the program runs", 0), ("cgroup and namespaces", 1)] {
        assert!(has(name, thread), "{name} {thread}: {text}");
    }
    let commands: Vec<_> = events.iter().filter(|e| e["name"] == "process_name").map(|e| &e["args"]["name"]).collect();
    for name in ["vessel create", "vessel start", "vessel exec"] {
        assert!(commands.iter().any(|c| *c == name), "{commands:?}");
    }
    let table = fs::read_to_string(&table).unwrap();
    assert!(table.lines().next().unwrap().ends_with("  delete"), "{table}");
    assert!(table.lines().any(|l| l.ends_with("  until the processes have ended")), "{table}");
}

#[test]
fn timings_that_cannot_be_written_are_an_error() {
    deviates!("runc", "has no such flag");
    deviates!("crun", "has no such flag");
    let out = bare(&["--timings", "/no/such/dir/file", "state", "nobody"]).run().exits(1);
    out.fails("cannot open /no/such/dir/file (--timings): no such file or directory");
}
