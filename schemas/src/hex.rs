//! Bytes as text.

/// Lower-case hex. By hand: each event without an id has one made, and formatting costs ten times as much.
pub fn encode(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(if value < 10 { b'0' + value } else { b'a' + value - 10 });
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 0xf));
    }
    text
}

/// Bytes of a line of [`around`].
const LINE_BYTES: usize = 16;
/// Lines before the one that is marked, and after it.
const LINES_BEFORE: usize = 2;
const LINES_AFTER: usize = 1;

/// The bytes around one of them, 16 a line: where the line begins, the bytes, and those that are ASCII as such. A line
/// below marks the byte at `at`; the end, where that is behind the last.
pub fn around(bytes: &[u8], at: usize) -> String {
    let at = at.min(bytes.len());
    let marked = at / LINE_BYTES;
    let (first, last) = (marked.saturating_sub(LINES_BEFORE), marked + LINES_AFTER);
    let mut lines = Vec::new();
    for line in first..=last {
        let begin = line * LINE_BYTES;
        let of_line = bytes.get(begin..bytes.len().min(begin + LINE_BYTES)).unwrap_or_default();
        if !of_line.is_empty() {
            let hex: String = of_line.iter().map(|byte| format!("{byte:02x} ")).collect();
            let shown = |byte: &u8| if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '.' };
            let text: String = of_line.iter().map(shown).collect();
            lines.push(format!("{begin:>7}  {hex:<width$} {text}", width = LINE_BYTES * 3));
        }
        if line == marked {
            lines.push(format!("{:>7}  {:indent$}^^ byte {at}", "", "", indent = (at - begin) * 3));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_below_its_byte_also_at_the_end() {
        let bytes: Vec<u8> = (0x40..0x40 + 36).collect();
        let found = around(&bytes, 33);
        let lines: Vec<&str> = found.lines().collect();
        assert_eq!(lines.len(), 4, "{found}");
        let column = lines[3].find("^^").unwrap();
        assert_eq!(lines[2].get(column..column + 2), Some("61"), "{found}");
        assert!(lines[0].ends_with("@ABCDEFGHIJKLMNO"), "{found}");
        assert!(around(&bytes, 36).ends_with("^^ byte 36"));
        assert!(around(&bytes[..32], 32).lines().last().unwrap().starts_with("         ^^ byte 32"));
        assert_eq!(around(&[], 9), "         ^^ byte 0");
    }
}
