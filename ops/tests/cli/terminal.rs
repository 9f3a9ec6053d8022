//! A terminal with a program on it, and somebody who types.

use std::{
    fs::File,
    io::{Read, Write},
    process::Command,
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use nix::pty::{Winsize, openpty};

use super::Running;

/// What a line editor shows when it begins to read a line: that it tells pasting from typing.
const READS: &str = "\x1b[?2004h";
/// How long is waited for what must come: whoever waits longer waits for ever.
const COMES_WITHIN: Duration = Duration::from_secs(60);

pub(super) struct Terminal {
    pub(super) running: Running,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    /// What was shown since `until` was asked last.
    shown: String,
}

impl Terminal {
    pub(super) fn open(mut command: Command) -> Self {
        let size = Winsize { ws_row: 50, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let slave = || pty.slave.try_clone().unwrap();
        command.stdin(slave()).stdout(slave()).stderr(slave()).env("TERM", "xterm");
        let running = Running::spawn(&mut command);
        let mut screen = File::from(pty.master);
        let keyboard = screen.try_clone().unwrap();
        let (put, taken) = channel();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // It ends with the program.
            while let Ok(read @ 1..) = screen.read(&mut piece) {
                if put.send(piece[..read].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { running, keyboard, screen: taken, shown: String::new() }
    }

    /// Presses keys, once the next line is read.
    pub(super) fn press(&mut self, keys: &str) {
        self.until(READS);
        self.type_on(keys);
    }

    /// Presses keys in the line that is being read.
    pub(super) fn type_on(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Types a line, once it is read.
    pub(super) fn enter(&mut self, line: &str) {
        self.press(line);
        self.type_on("\r");
    }

    /// Waits until something is shown; returns all that was shown before it, and it.
    pub(super) fn until(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.shown.find(text) {
                let rest = self.shown.split_off(at + text.len());
                return std::mem::replace(&mut self.shown, rest);
            }
            match self.screen.recv_timeout(COMES_WITHIN) {
                Ok(piece) => self.shown.push_str(&String::from_utf8_lossy(&piece)),
                Err(_) => panic!("{text:?} was not shown, but {:?}", self.shown),
            }
        }
    }
}
