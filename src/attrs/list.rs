//! Lists of CPUs and memory nodes, as in `0-3,7` (cpuset(7), "List format").

use crate::error::{Error, Result};

/// One more than the largest number that a list may hold, far above what the kernel can be built for.
const LIMIT: usize = 1 << 16;

const WORD: usize = u64::BITS as usize;

/// Parses a list into a mask, the lowest number in the lowest bit of the first word. An empty list gives an empty mask.
pub fn parse(list: &str) -> Result<Vec<u64>> {
    let mut mask = Vec::new();
    for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let (first, last) = match item.split_once('-') {
            Some((first, last)) => (number(first, list)?, number(last, list)?),
            None => (number(item, list)?, number(item, list)?),
        };
        if first > last {
            return Err(Error::new(format!("the range {item:?} in {list:?} ends before it begins")));
        }
        if mask.len() <= last / WORD {
            mask.resize(last / WORD + 1, 0);
        }
        for n in first..=last {
            mask[n / WORD] |= 1 << (n % WORD);
        }
    }
    Ok(mask)
}

fn number(text: &str, list: &str) -> Result<usize> {
    let bad = || Error::new(format!("{text:?} in {list:?} is not a number below {LIMIT}"));
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    text.parse().ok().filter(|n| *n < LIMIT).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_masks() {
        let cases: &[(&str, &[u64])] = &[
            ("", &[]),
            ("0", &[1]),
            ("0-3,7", &[0b1000_1111]),
            ("1, 3", &[0b1010]),
            ("63,64", &[1 << 63, 1]),
            ("0-0", &[1]),
        ];
        for (list, mask) in cases {
            assert_eq!(parse(list).unwrap(), *mask, "{list}");
        }
        assert_eq!(parse("2047").unwrap().len(), 32);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for list in ["x", "-1", "1-", "3-1", "0-65536", "+1", "1--2", "99999999999999999999"] {
            let e = parse(list).unwrap_err().to_string();
            assert!(e.contains(&format!("{list:?}")), "{e}");
        }
    }
}
