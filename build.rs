//! Tells the program the commit that it was built from, which engines show, and the linker where it starts.

use std::process::Command;

/// Those that src/sys/libc_start.rs is made for.
const GLIBC: [&str; 2] = ["2.36", "2.41"];

fn main() {
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-changed=.git/logs/HEAD");
    let output = Command::new("git").args(["rev-parse", "HEAD"]).output();
    let commit = output.ok().filter(|o| o.status.success()).and_then(|o| String::from_utf8(o.stdout).ok());
    let target = |name: &str| std::env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    let is_static = target("FEATURE").split(',').any(|feature| feature == "crt-static");
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    println!("cargo:rustc-check-cfg=cfg(glibc_start)");
    // See vessel_start in src/sys/entry.rs.
    if target("ARCH") == "x86_64" && target("ENV") == "gnu" && is_static {
        println!("cargo:rustc-link-arg-bins=-Wl,-e,vessel_start");
        // Another one may be relocated at its start, which glibc's own does.
        let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
        let is_fixed = flags.split('\x1f').any(|flag| flag.ends_with("relocation-model=static"));
        if is_fixed && glibc().is_some_and(|version| GLIBC.contains(&version.as_str())) {
            println!("cargo:rustc-cfg=glibc_start");
        }
        if is_release {
            // A page fault maps the 64 KiB around it, of the address space and of a large folio of the file alike: both
            // in step map the least.
            println!("cargo:rustc-link-arg-bins=-Wl,-z,max-page-size=65536");
            // The functions that the usual commands execute, side by side (hack/hot.sh).
            println!("cargo:rerun-if-changed=src/hot.ld");
            let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
            // Not by -Wl, which a comma in the path would end.
            println!("cargo:rustc-link-arg-bins=-T");
            println!("cargo:rustc-link-arg-bins={here}/src/hot.ld");
        }
    }
    // Not by the profile, which takes part in the names of functions: hack/hot.sh looks at them.
    println!("cargo:rerun-if-env-changed=VESSEL_SYMBOLS");
    if is_release && std::env::var_os("VESSEL_SYMBOLS").is_none() {
        println!("cargo:rustc-link-arg-bins=-s");
        println!("cargo:rustc-link-arg-examples=-s");
    }
    println!("cargo:rustc-env=VESSEL_COMMIT={}", commit.as_deref().unwrap_or("unknown").trim());
}

/// The version of the static C library that is linked, by what it tells of itself.
fn glibc() -> Option<String> {
    let linker = std::env::var_os("RUSTC_LINKER").unwrap_or_else(|| "cc".into());
    let output = Command::new(linker).arg("-print-file-name=libc.a").output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    println!("cargo:rerun-if-changed={}", path.trim());
    let library = std::fs::read(path.trim()).ok()?;
    let before = b"stable release version ";
    let at = library.windows(before.len()).position(|bytes| bytes == before)? + before.len();
    let version = library[at..].iter().map(|byte| char::from(*byte));
    Some(version.take_while(|c| c.is_ascii_digit() || *c == '.').collect::<String>().trim_end_matches('.').to_owned())
}
