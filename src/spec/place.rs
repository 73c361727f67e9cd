//! Where in a JSON text a fault is: serde_json tells how far it had read, people want the names on the way there.
//!
//! A deserializer that keeps track of the way would be a second copy of the code for every type of oci-spec.

/// The place of an error in a text without blanks, as `linux.namespaces[1].type`; empty for the whole.
pub(super) fn of(error: &serde_json::Error, text: &str) -> String {
    let missing = error.to_string().starts_with("missing field");
    find(text, error.column(), missing).unwrap_or_default()
}

/// What serde_json says, without its line and column.
pub(super) fn words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&position).map_or(text.clone(), str::to_string)
}

/// One step of the way.
enum Step {
    Key(String),
    Index(usize),
}

/// The way to the value at whose end the reader stood, or at whose begin, where it wanted none with parts. Behind an
/// object it is the object that lacks a field, else its last value.
fn find(text: &str, offset: usize, missing: bool) -> Option<String> {
    let bytes = text.as_bytes();
    let mut way: Vec<Step> = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'{' | b'[' if at == offset => return Some(words_of(&way)),
            b'{' => way.push(Step::Key(String::new())),
            b'[' => way.push(Step::Index(0)),
            b'}' | b']' => {
                let last = way.pop();
                if at + 1 == offset {
                    way.extend(
                        last.filter(|step| byte == b'}' && !missing && !matches!(step, Step::Key(k) if k.is_empty())),
                    );
                    return Some(words_of(&way));
                }
            }
            b',' => {
                if let Some(Step::Index(index)) = way.last_mut() {
                    *index += 1;
                }
            }
            b':' => {}
            _ => {
                let end = at + length(&bytes[at..]);
                if bytes.get(end) == Some(&b':') {
                    // A key of the object that is being read.
                    way.pop();
                    if end == offset {
                        return Some(words_of(&way));
                    }
                    way.push(Step::Key(serde_json::from_str(text.get(at..end)?).ok()?));
                } else if end == offset {
                    return Some(words_of(&way));
                }
                at = end;
                continue;
            }
        }
        at += 1;
    }
    None
}

/// The length of the text, number or word at the begin of `bytes`.
fn length(bytes: &[u8]) -> usize {
    if bytes[0] != b'"' {
        return bytes.iter().position(|b| matches!(b, b',' | b'}' | b']')).unwrap_or(bytes.len());
    }
    let mut at = 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn words_of(way: &[Step]) -> String {
    let mut words = String::new();
    for step in way {
        match step {
            Step::Key(key) => {
                if !words.is_empty() {
                    words.push('.');
                }
                words.push_str(key);
            }
            Step::Index(index) => words.push_str(&format!("[{index}]")),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_a_place() {
        // The reader stands at the mark.
        for (marked, missing, want) in [
            (r#"{"a":1^,"b":2}"#, false, "a"),
            (r#"{"a":"x,}\"y"^}"#, false, "a"),
            (r#"{"a":[1,{"b.c":true,"d":[2,3^]}]}"#, false, "a[1].d[1]"),
            (r#"{"a":[{"b":1},{"c":2}^]}"#, true, "a[1]"),
            (r#"{"a":[{"b":1},{"c":2}^]}"#, false, "a[1].c"),
            (r#"{"a":{}^}"#, false, "a"),
            (r#"{"a":{"b":^{"c":1}}}"#, false, "a.b"),
            (r#"{"a":^[1]}"#, false, "a"),
            (r#"{"a":[1,2]^}"#, false, "a"),
            (r#"{"a":{"b"^:1}}"#, false, "a"),
            ("null^", false, ""),
        ] {
            let offset = marked.find('^').unwrap();
            let text = marked.replace('^', "");
            assert_eq!(find(&text, offset, missing).as_deref(), Some(want), "{marked}");
        }
    }
}
