//! The beginning of what strangers wrote, for those who read why it was refused.

/// Longest excerpt, characters: a reason goes into a header, a row of a table and a line on a terminal.
pub const EXCERPT_CHARS_MAX: usize = 300;

/// The beginning of a text on one line: what is cut off is an ellipsis, a control character U+FFFD.
pub fn excerpt(text: &str) -> String {
    let mut characters = text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c });
    let mut excerpt: String = characters.by_ref().take(EXCERPT_CHARS_MAX).collect();
    excerpt.extend(characters.next().map(|_| '…'));
    excerpt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_off_shows() {
        assert_eq!(excerpt("a\nb\0"), "a\u{fffd}b\u{fffd}");
        let most = "ß".repeat(EXCERPT_CHARS_MAX);
        assert_eq!(excerpt(&most), most);
        assert_eq!(excerpt(&format!("{most}ß")), format!("{most}…"));
    }
}
