//! Queries from stdin, one per line.

use std::io::{self, BufRead, Read};

use anyhow::Context as _;
use serviceradar_srql::{
    error::{Code, QueryError},
    parse::QUERY_BYTES_MAX,
};

use super::{Asking, Refused, answers::Written, line::Line, session::Session};
use crate::output;

/// Answers each, up to the first mistake. To be given none is one.
pub(super) async fn run(session: &mut Session<'_>, asking: Asking) -> anyhow::Result<()> {
    let mut input = io::stdin().lock();
    let mut answered = 0_usize;
    for number in 1_usize.. {
        let of_line = || format!("line {number}");
        let Some(line) = next(&mut input).with_context(of_line)? else {
            break;
        };
        if Line::of(&line) == Line::Nothing {
            continue;
        }
        if answered > 0 && matches!(asking.written, Written::Table | Written::Csv) {
            output::line("")?;
        }
        asking.answer(session, line.trim(), None).await.with_context(of_line)?;
        answered += 1;
    }
    if answered > 0 {
        return Ok(());
    }
    let none = QueryError::new(Code::Syntax, (0, 0), "no query was given");
    Err(Refused::new("", vec![none.hint("give one, or one per line on stdin")]).into())
}

/// The next line; none: there are no more.
fn next(input: &mut impl BufRead) -> anyhow::Result<Option<String>> {
    let mut line = Vec::new();
    // A line break is no part of a query, and one byte more is too much.
    let most = QUERY_BYTES_MAX + 2;
    if input.take(most as u64).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let refuse = |code, said: String| Refused::new("", vec![QueryError::new(code, (0, 0), said)]);
    if line.len() == most && !line.ends_with(b"\n") {
        return Err(refuse(Code::TooWide, format!("a query has {QUERY_BYTES_MAX} bytes at most")).into());
    }
    Ok(Some(String::from_utf8(line).map_err(|_| refuse(Code::Syntax, "this is not UTF-8".to_owned()))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_up_to_the_length_of_a_query() {
        let longest = "x".repeat(QUERY_BYTES_MAX);
        let mut input = format!("a\n\n{longest}\r\n{longest}yy").into_bytes();
        input.push(0xff);
        let mut input = &input[..];
        assert_eq!(next(&mut input).unwrap().unwrap(), "a\n");
        assert_eq!(next(&mut input).unwrap().unwrap(), "\n");
        assert_eq!(next(&mut input).unwrap().unwrap().trim(), longest);
        assert!(next(&mut input).unwrap_err().to_string().contains("bytes at most"));
        assert!(next(&mut input).unwrap_err().to_string().contains("not UTF-8"));
        assert!(next(&mut input).unwrap().is_none());
    }
}
