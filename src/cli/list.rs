//! `vessel list`.

use std::io::Write;

use super::lex::switch;
use super::verb::{Call, Count, Verb, format, print};
use crate::container::{self, View};
use crate::error::{Error, Result};
use crate::log;

pub(super) const VERB: Verb = Verb {
    name: "list",
    about: "list the containers under --root",
    details: "Containers of others are not seen where their state is under another --root.",
    args: "",
    count: Count::Exactly(0),
    flags_first: false,
    flags: || vec![format(), switch("quiet", 'q', "print only the ids")],
    run,
};

fn run(call: &Call) -> Result<i32> {
    let mut views = Vec::new();
    for view in container::list(&call.host)? {
        match view {
            Ok(view) => views.push(view),
            Err(e) => log::warn(&e.to_string()),
        }
    }
    if call.switch("quiet") {
        print(&views.iter().map(|v| format!("{}\n", v.id)).collect::<String>());
        return Ok(0);
    }
    match call.text("format")?.as_deref() {
        Some("table") => print(&table(&views)?),
        Some("json") => print(&json(&views)?),
        _ => return Err(Error::new("invalid format option (table and json are known)")),
    }
    Ok(0)
}

/// One line; `null` where there is nothing, as a nil slice is in Go.
fn json(views: &[View]) -> Result<String> {
    let views = if views.is_empty() { None } else { Some(views) };
    serde_json::to_string(&views).map(|s| s + "\n").map_err(|e| Error::new(e.to_string()))
}

fn table(views: &[View]) -> Result<String> {
    // Go counts the padding into the least width of 12, this crate does not.
    let mut table = tabwriter::TabWriter::new(Vec::new()).minwidth(9).padding(3);
    let fill = |table: &mut tabwriter::TabWriter<Vec<u8>>| {
        writeln!(table, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER")?;
        for v in views {
            writeln!(table, "{}\t{}\t{}\t{}\t{}\t{}", v.id, v.pid, v.status, v.bundle, v.created, v.owner)?;
        }
        table.flush()
    };
    fill(&mut table)?;
    let bytes = table.into_inner().map_err(|e| Error::new(e.to_string()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        View {
            oci_version: "1.3.0".into(),
            id: "a-long-container-name".into(),
            pid: 7,
            status: "running".into(),
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: "2026-01-02T03:04:05.000000006Z".into(),
            annotations: [("k".to_string(), "v".to_string())].into(),
            owner: "root".into(),
        }
    }

    #[test]
    fn the_table_has_runcs_columns() {
        let want = "ID                      PID         STATUS      BUNDLE      CREATED                          OWNER\n\
                    a-long-container-name   7           running     /b          2026-01-02T03:04:05.000000006Z   root\n";
        assert_eq!(table(&[view()]).unwrap(), want);
        let head = "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n";
        assert_eq!(table(&[]).unwrap(), head);
    }

    #[test]
    fn json_is_one_line_with_runcs_keys_in_order() {
        assert_eq!(json(&[]).unwrap(), "null\n");
        assert_eq!(
            json(&[view()]).unwrap(),
            "[{\"ociVersion\":\"1.3.0\",\"id\":\"a-long-container-name\",\"pid\":7,\"status\":\"running\",\"bundle\":\"/b\",\
             \"rootfs\":\"/b/rootfs\",\"created\":\"2026-01-02T03:04:05.000000006Z\",\"annotations\":{\"k\":\"v\"},\
             \"owner\":\"root\"}]\n"
        );
    }
}
