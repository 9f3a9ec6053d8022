//! Texts: an append-only store, in which many short ones lie side by side.

/// Bytes of a chunk: growth moves nothing that is there.
const CHUNK: usize = 1 << 20;

/// Where a text lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextAt {
    chunk: u32,
    start: u32,
    len: u32,
}

/// Texts, each for ever.
#[derive(Default)]
pub struct Texts {
    chunks: Vec<String>,
}

impl Texts {
    /// Keeps a text. A long one has a chunk of its own.
    pub fn keep(&mut self, text: &str) -> TextAt {
        let has_room = |chunk: &String| chunk.capacity() - chunk.len() >= text.len();
        if !self.chunks.last().is_some_and(has_room) {
            self.chunks.push(String::with_capacity(CHUNK.max(text.len())));
        }
        let chunk = self.chunks.len() - 1;
        let start = self.chunks[chunk].len();
        self.chunks[chunk].push_str(text);
        TextAt { chunk: chunk as u32, start: start as u32, len: text.len() as u32 }
    }

    /// A text.
    pub fn at(&self, TextAt { chunk, start, len }: TextAt) -> &str {
        &self.chunks[chunk as usize][start as usize..][..len as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_is_found_where_it_was_put() {
        let long = "ä".repeat(CHUNK);
        let given = ["", "a", "dé", &long, "b", &long[..CHUNK], "c"];
        let mut texts = Texts::default();
        let kept = given.map(|text| texts.keep(text));
        assert_eq!(kept.map(|at| texts.at(at)), given);
    }
}
