//! Writes the manual pages and the completions of shells, which come from the same table as `--help`; with `--check`, says
//! which of them are not as they should be.

use std::io::Result;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

fn main() -> Result<ExitCode> {
    let check = std::env::args().any(|a| a == "--check");
    let mut stale = false;
    for (path, text) in pages()?.into_iter().chain(completions()) {
        if check {
            if std::fs::read(&path).ok().as_ref() != Some(&text) {
                eprintln!("{} is not what `make docs` writes", path.display());
                stale = true;
            }
            continue;
        }
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(&path, text)?;
    }
    Ok(if stale { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

type File = (PathBuf, Vec<u8>);

/// A page for vessel, and one for each command.
fn pages() -> Result<Vec<File>> {
    let whole = vessel::cli::documented().disable_help_subcommand(true);
    let verbs: Vec<_> = whole
        .get_subcommands()
        .map(|verb| {
            // clap keeps names for good.
            let name: &'static str = format!("vessel-{}", verb.get_name()).leak();
            verb.clone().name(name)
        })
        .collect();
    std::iter::once(whole).chain(verbs).map(page).collect()
}

fn page(command: Command) -> Result<File> {
    let path = PathBuf::from(format!("docs/man/{}.8", command.get_name()));
    let mut text = Vec::new();
    let man = Man::new(command).section("8").source("vessel").manual("Containers").date(env!("CARGO_PKG_VERSION"));
    man.render(&mut text)?;
    Ok((path, text))
}

fn completions() -> impl Iterator<Item = File> {
    [(Shell::Bash, "vessel.bash"), (Shell::Zsh, "_vessel"), (Shell::Fish, "vessel.fish")].into_iter().map(
        |(shell, name)| {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut vessel::cli::documented(), "vessel", &mut text);
            (PathBuf::from("docs/completion").join(name), text)
        },
    )
}
