//! `vessel ps`.

use std::process::Command;

use super::verb::{Call, Count, Verb, format, print};
use crate::container;
use crate::error::{Context, Error, Result};

pub(super) const VERB: Verb = Verb {
    name: "ps",
    about: "show the processes of a container",
    details: "Options that follow the name are those of ps(1), of whose output the lines of the container's \
              processes are shown. They need a column PID.",
    args: "<container-id> [ps options]",
    count: Count::AtLeast(1),
    flags_first: true,
    flags: || vec![format()],
    run,
};

fn run(call: &Call) -> Result<i32> {
    let pids = container::pids(&call.host, &call.id())?;
    match call.text("format")?.as_deref() {
        Some("json") => {
            print(&format!("{}\n", serde_json::to_string(&pids).map_err(|e| Error::new(e.to_string()))?));
            return Ok(0);
        }
        Some("table") => {}
        _ => return Err(Error::new("invalid format option (table and json are known)")),
    }
    let mut ps = Command::new("ps");
    match &call.args[1..] {
        [] => ps.arg("-ef"),
        args => ps.args(args),
    };
    let output = ps.output().context(|| "cannot run ps, which makes the table (--format json does without it)")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::new(format!("ps failed ({}): {}", output.status, said.trim())));
    }
    print(&filter(&String::from_utf8_lossy(&output.stdout), &pids)?);
    Ok(0)
}

/// The heading of the output of ps(1), and the lines whose PID is one of `pids`.
fn filter(output: &str, pids: &[i32]) -> Result<String> {
    let mut lines = output.lines();
    let head = lines.next().unwrap_or_default();
    let column = head
        .split_whitespace()
        .position(|title| title == "PID")
        .ok_or_else(|| Error::new("couldn't find PID field in ps output"))?;
    let mut text = format!("{head}\n");
    for line in lines {
        if let Some(Ok(pid)) = line.split_whitespace().nth(column).map(str::parse::<i32>)
            && pids.contains(&pid)
        {
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_chosen_by_the_pid_column() {
        let output = "UID   PID  PPID CMD\nroot    1     0 init\nroot   12     1 sh 1\n";
        assert_eq!(filter(output, &[12]).unwrap(), "UID   PID  PPID CMD\nroot   12     1 sh 1\n");
        assert_eq!(filter(output, &[]).unwrap(), "UID   PID  PPID CMD\n");
        assert!(filter("USER CMD\n", &[1]).is_err());
    }
}
