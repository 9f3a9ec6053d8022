//! Texts: an append-only store, in which many short ones lie side by side.

/// Bytes of a chunk: growth moves nothing that is there.
const CHUNK: usize = 1 << 20;

/// Where a text lies: its chunk, where it starts there, and its length. One as long as a chunk, or longer, is a chunk of
/// its own, and its length is 0 here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextAt(u64);

/// Of the text that is nowhere.
const EMPTY: TextAt = TextAt(u64::MAX);

const BITS: u32 = CHUNK.trailing_zeros();
const MASK: u64 = CHUNK as u64 - 1;

impl From<TextAt> for u64 {
    fn from(TextAt(at): TextAt) -> u64 {
        at
    }
}

impl From<u64> for TextAt {
    fn from(at: u64) -> Self {
        Self(at)
    }
}

/// Texts, each for ever.
#[derive(Default)]
pub struct Texts {
    chunks: Vec<String>,
}

impl Texts {
    /// Keeps a text.
    pub fn keep(&mut self, text: &str) -> TextAt {
        if text.is_empty() {
            return EMPTY;
        }
        let has_room = |chunk: &String| chunk.capacity() - chunk.len() >= text.len();
        if text.len() >= CHUNK || !self.chunks.last().is_some_and(has_room) {
            self.chunks.push(String::with_capacity(CHUNK.max(text.len())));
        }
        let chunk = self.chunks.len() - 1;
        let start = self.chunks[chunk].len();
        self.chunks[chunk].push_str(text);
        let len = if text.len() >= CHUNK { 0 } else { text.len() };
        TextAt((chunk as u64) << (2 * BITS) | (start as u64 & MASK) << BITS | len as u64)
    }

    /// A text.
    pub fn at(&self, text: TextAt) -> &str {
        if text == EMPTY {
            return "";
        }
        let TextAt(at) = text;
        let chunk = &self.chunks[(at >> (2 * BITS)) as usize];
        let (start, len) = ((at >> BITS & MASK) as usize, (at & MASK) as usize);
        if len == 0 { chunk } else { &chunk[start..][..len] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_is_found_where_it_was_put() {
        let long = "ä".repeat(CHUNK);
        let given = ["", "a", "dé", &long, "b", &long[..CHUNK], "c", &long[..CHUNK - 2], "de", "", "f"];
        let mut texts = Texts::default();
        let kept = given.map(|text| texts.keep(text));
        assert_eq!(kept.map(|at| texts.at(at)), given);
    }
}
