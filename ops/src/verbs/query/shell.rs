//! The shell: queries as they are typed, on a terminal.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use rustyline::{
    CompletionType, Config as EditorConfig, Context, Editor, Helper,
    completion::{Completer, Pair},
    error::ReadlineError,
    highlight::Highlighter,
    hint::Hinter,
    history::FileHistory,
    validate::Validator,
};
use serviceradar_ops::config::Config;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    Asking, answers,
    line::{Line, help, offers},
    session::Session,
};
use crate::output;

/// In the data folder: what was typed.
const HISTORY_FILE: &str = "query.history";
/// Lines that are kept.
const HISTORY_LINES_MAX: usize = 1_000;

/// Answers what is typed, until it ends.
pub(super) async fn run(session: Session<'_>, asking: Asking, config: &Config) -> anyhow::Result<()> {
    let mut shell = Shell { session, asking, last: None };
    if !asking.translates {
        shell.session.connect().await?;
    }
    let mut typed = Typed::open(&config.dir)?;
    let tenant = &config.tenant;
    output::line(&format!("Questions about {tenant}, in SRQL. Tab completes, help says more, Ctrl-D ends."))?;
    let prompt = format!("{tenant}> ");
    loop {
        let Some(line) = tokio::task::block_in_place(|| typed.next(&prompt))? else {
            return Ok(());
        };
        let meant = Line::of(&line);
        if meant == Line::Exit {
            return Ok(());
        }
        if let Err(error) = shell.heed(meant).await {
            tell(&format!("error: {error:#}"));
        }
    }
}

/// Says something that is no answer.
fn tell(text: &str) {
    // Nothing can be done about a stderr that is gone.
    writeln!(io::stderr(), "{text}").ok();
}

struct Shell<'a> {
    session: Session<'a>,
    asking: Asking,
    last: Option<Page>,
}

/// The page that was shown last.
struct Page {
    query: String,
    /// Cursors of the next, and of the one before, where they are.
    next: Option<String>,
    previous: Option<String>,
}

impl Shell<'_> {
    async fn heed(&mut self, line: Line<'_>) -> anyhow::Result<()> {
        match line {
            Line::Nothing | Line::Exit => Ok(()),
            Line::Help => Ok(output::line(&help())?),
            Line::As(None) => bail!("give as table, as json, as ndjson or as csv"),
            Line::As(Some(written)) => {
                self.asking.written = written;
                Ok(())
            }
            Line::Translate(query) => {
                let query = query.or(self.last.as_ref().map(|page| &*page.query));
                let query = query.context("nothing was asked yet: give translate and a query")?;
                Ok(answers::translation(self.asking.format, &self.session.page(query, None)?.plan)?)
            }
            Line::Query(query) if self.asking.translates => {
                Ok(answers::translation(self.asking.format, &self.session.page(query, None)?.plan)?)
            }
            Line::Query(query) => self.ask(query, None).await,
            Line::Next => self.turn(|page| &page.next, "this was the last page").await,
            Line::Previous => self.turn(|page| &page.previous, "this was the first page").await,
        }
    }

    /// Turns to the page of a cursor.
    async fn turn(&mut self, to: fn(&Page) -> &Option<String>, none: &'static str) -> anyhow::Result<()> {
        let page = self.last.take().context("nothing was asked yet")?;
        let turned = match to(&page) {
            Some(cursor) => self.ask(&page.query, Some(cursor)).await,
            None => Err(anyhow::anyhow!(none)),
        };
        // Where it did not come to another page, this is the one.
        self.last.get_or_insert(page);
        turned
    }

    /// Answers a query with a page, unless Ctrl-C is faster.
    async fn ask(&mut self, query: &str, cursor: Option<&str>) -> anyhow::Result<()> {
        let planned = self.session.page(query, cursor)?;
        // It hears what is pressed from now on.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let answer = async {
            if self.session.is_lost().await {
                tell("the connection to the database was lost: connecting again");
            }
            self.session.answer(&planned).await
        };
        let answer = tokio::select! {
            answer = answer => answer?,
            _ = interrupt.recv() => {
                self.session.give_up().await;
                tell("cancelled");
                return Ok(());
            }
        };
        let write = |from| self.session.cursor(&planned, from);
        answers::page(self.asking.written, &planned.plan, &answer, write)?;
        output::line(&answers::summary(&answer))?;
        let (next, previous) = (answer.next.map(write), answer.previous.map(write));
        self.last = Some(Page { query: query.to_owned(), next, previous });
        Ok(())
    }
}

/// Lines as they are typed, and what was typed before.
struct Typed {
    editor: Editor<Completion, FileHistory>,
    /// Where lines are kept; none where that cannot be done.
    history: Option<PathBuf>,
}

impl Typed {
    /// Takes the terminal, and what is kept in the folder.
    fn open(dir: &Path) -> rustyline::Result<Self> {
        let config = EditorConfig::builder()
            .max_history_size(HISTORY_LINES_MAX)?
            .history_ignore_dups(true)?
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            .completion_show_all_if_ambiguous(true)
            .build();
        let mut editor = Editor::with_config(config)?;
        editor.set_helper(Some(Completion));
        let mut typed = Self { editor, history: None };
        let path = dir.join(HISTORY_FILE);
        let loaded = fs::create_dir_all(dir)
            .map_err(ReadlineError::from)
            .and_then(|()| if path.exists() { typed.editor.load_history(&path) } else { Ok(()) });
        match loaded {
            Ok(()) => typed.history = Some(path),
            Err(error) => tell(&format!("what is typed is not kept: {}: {error}", path.display())),
        }
        Ok(typed)
    }

    /// The next line; none at the end.
    fn next(&mut self, prompt: &str) -> rustyline::Result<Option<String>> {
        loop {
            match self.editor.readline(prompt) {
                Ok(line) => {
                    self.keep(&line)?;
                    return Ok(Some(line));
                }
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Keeps a line, at once: who is killed has it.
    fn keep(&mut self, line: &str) -> rustyline::Result<()> {
        if line.trim().is_empty() || !self.editor.add_history_entry(line)? {
            return Ok(());
        }
        if let Some(path) = &self.history
            && let Err(error) = self.editor.append_history(path)
        {
            tell(&format!("what is typed is not kept any longer: {}: {error}", path.display()));
            self.history = None;
        }
        Ok(())
    }
}

/// Completion, by the offers of the language.
struct Completion;

impl Completer for Completion {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (begin, offers) = offers(line, at);
        let width = offers.iter().map(|offer| offer.text.chars().count()).max().unwrap_or_default();
        let pair = |offer: serviceradar_srql::complete::Offer| {
            let display = format!("{:width$}  {}", offer.text, offer.label).trim_end().to_owned();
            Pair { display, replacement: offer.text }
        };
        Ok((begin, offers.into_iter().map(pair).collect()))
    }
}

impl Hinter for Completion {
    type Hint = String;
}

impl Highlighter for Completion {}
impl Validator for Completion {}
impl Helper for Completion {}
