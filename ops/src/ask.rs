//! Questions to a person, on stderr.

use std::io::{self, BufRead, IsTerminal, Write};

/// What a person answers; nothing where there is nobody to ask.
pub(crate) fn ask(question: &str) -> io::Result<String> {
    let mut answer = String::new();
    if io::stdin().is_terminal() {
        write!(io::stderr(), "{question}")?;
        io::stdin().lock().read_line(&mut answer)?;
    }
    Ok(answer)
}
