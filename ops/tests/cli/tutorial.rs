//! The tutorial: what it has people run runs, and says what it shows.
//!
//! Its blocks: `sh` is run, `text` is what comes of it, `console` is the shell: what stands behind a prompt is typed. In what
//! is shown `…` is anything, in a line of its own any lines, and a time is any time. Where there is no `text`, it must end
//! well.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use tempfile::TempDir;

use super::{Running, apart, terminal::Terminal, text};

const TUTORIAL: &str = include_str!("../../../docs/tutorial.md");
/// Where the service answers, unless said.
const ADDRESS: &str = "127.0.0.1:8471";
const PROMPT: &str = "default> ";

/// A block of code: its language, and its text.
type Block = (&'static str, &'static str);

fn blocks() -> Vec<Block> {
    let fenced = TUTORIAL.split("```").skip(1).step_by(2);
    fenced.map(|block| block.split_once('\n').unwrap()).collect()
}

/// Whether a text is as it is shown.
fn is_as_shown(shown: &[&str], lines: &[&str]) -> bool {
    match (shown.split_first(), lines.split_first()) {
        (None, None) => true,
        (Some((&"…", rest)), line) => {
            is_as_shown(rest, lines) || line.is_some_and(|(_, others)| is_as_shown(shown, others))
        }
        (Some((shown, rest)), Some((line, others))) => fits(shown, line) && is_as_shown(rest, others),
        _ => false,
    }
}

fn is_time(word: &str) -> bool {
    word.trim_end_matches(';').parse::<jiff::Timestamp>().is_ok()
}

/// Whether a line is as it is shown, but for its times, and how wide its columns are.
fn fits(shown: &str, line: &str) -> bool {
    let words = |text: &str| {
        let words = text.split_whitespace().map(|word| if is_time(word) { "(time)" } else { word });
        words.collect::<Vec<_>>().join(" ")
    };
    let (shown, line) = (words(shown), words(line));
    let Some((begin, rest)) = shown.split_once('…') else {
        return shown == line;
    };
    let Some(mut line) = line.strip_prefix(begin) else {
        return false;
    };
    let (between, end) = rest.rsplit_once('…').unwrap_or(("", rest));
    for piece in between.split('…') {
        match line.find(piece) {
            Some(at) => line = &line[at + piece.len()..],
            None => return false,
        }
    }
    line.ends_with(end)
}

/// The reader's machine.
struct Desk {
    dir: TempDir,
    path: String,
    /// Where the service answers here.
    address: Option<String>,
    /// What goes on in other terminals.
    running: Vec<Running>,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_serviceradar"), bin.join("serviceradar")).unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        Self { dir, path, address: None, running: Vec::new() }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = apart(&self.dir, program);
        command.env("PATH", &self.path).env("SERVICERADAR_DIR", self.dir.path().join("data"));
        command.env("SERVICERADAR_SRQL_LISTEN", "127.0.0.1:0").env("SERVICERADAR_LISTEN", "127.0.0.1:0");
        command.current_dir(self.dir.path());
        command
    }

    fn sh(&self, script: &str) -> Command {
        let script = match &self.address {
            Some(address) => script.replace(ADDRESS, address),
            None => script.to_owned(),
        };
        let mut command = self.command("sh");
        command.arg("-ec").arg(script);
        command
    }

    /// Starts what goes on, and reads what it prints until it is there.
    fn start(&mut self, script: &str, until: &str) -> Vec<String> {
        let mut command = self.sh(&format!("exec {script}"));
        let mut running = Running::spawn(command.stdout(Stdio::piped()).stderr(Stdio::null()));
        let lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
        self.running.push(running);
        let mut printed = Vec::new();
        for line in lines {
            printed.push(line.unwrap());
            if printed[printed.len() - 1].contains(until) {
                return printed;
            }
        }
        panic!("{script} ended: {printed:?}");
    }

    /// Runs a block; returns what it prints, and whether it ended well.
    fn run(&mut self, script: &str) -> (String, bool) {
        if script.starts_with("serviceradar demo") {
            return (self.start(script, "Armis answers at").join("\n"), true);
        }
        if script.starts_with("serviceradar serve --keys") {
            let printed = self.start(script, "answering on").join("\n");
            let address = printed.split("http://").nth(1).unwrap().trim();
            let as_told = printed.replace(address, ADDRESS);
            self.address = Some(address.to_owned());
            return (as_told, true);
        }
        let output = self.sh(&format!("exec 2>&1\n{script}")).output().unwrap();
        (text(&output.stdout).to_owned(), output.status.success())
    }

    /// Types what stands behind the prompts of a transcript, and waits for what is shown under each.
    fn type_in(&self, transcript: &str) {
        let mut command = self.command("serviceradar");
        command.arg("query");
        let mut terminal = Terminal::open(command);
        for line in transcript.lines() {
            match line.strip_prefix(PROMPT) {
                Some(typed) => terminal.enter(typed),
                None => {
                    for piece in line.split(['…', ' ']).filter(|piece| !is_time(piece)) {
                        terminal.until(piece);
                    }
                }
            }
        }
    }
}

#[test]
fn every_command_of_the_tutorial_answers_what_it_shows() {
    let mut desk = Desk::new();
    let blocks = blocks();
    let mut answered = 0;
    for (at, (language, script)) in blocks.iter().enumerate() {
        match *language {
            "sh" => {
                let (printed, is_well) = desk.run(script);
                match blocks.get(at + 1) {
                    Some(("text", shown)) => {
                        let (shown, lines): (Vec<_>, Vec<_>) =
                            (shown.lines().collect(), printed.lines().collect());
                        assert!(is_as_shown(&shown, &lines), "{script}prints\n{printed}");
                        // Only mistakes that are shown may end badly.
                        assert!(is_well || shown[0].starts_with("error: "), "{script}fails: {printed}");
                    }
                    _ => assert!(is_well, "{script}fails: {printed}"),
                }
                answered += 1;
            }
            "console" => desk.type_in(script),
            "text" => assert!(at > 0 && blocks[at - 1].0 == "sh", "nothing was run for {script}"),
            other => panic!("a block of {other:?} is not run"),
        }
    }
    assert!(answered > 10, "{answered}");
    while let Some(mut running) = desk.running.pop() {
        assert_eq!(running.interrupt(), 0);
    }
}

#[test]
fn what_is_shown_is_not_anything() {
    assert!(
        fits("n 2026-01-01T00:00:00Z", "n  2027-01-02T03:04:05.678Z") && !fits("2026-01-01", "2027-01-01")
    );
    assert!(fits("a  … c", "a b c") && fits("…", "") && !fits("a … c", "a b d") && !fits("a", "a b"));
    assert!(is_as_shown(&["a", "…", "d"], &["a", "b", "c", "d"]) && !is_as_shown(&["a", "…"], &["b"]));
    assert!(!is_as_shown(&["a"], &["a", "b"]));
}
