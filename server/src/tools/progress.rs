//! A line on the terminal that says how far a tool is.
//!
//! Only on a terminal: a log wants no hundred lines about one file. The line is written over a few times a second and
//! is gone at the end, so that what remains on the screen is the result.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::report::size;

/// Between two changes of the line: soon enough to look alive.
const PAUSE: Duration = Duration::from_millis(100);
/// Letters of the bar.
const WIDTH: u64 = 24;

/// The line.
pub struct Bar {
    what: String,
    began: Instant,
    next: Instant,
    shown: bool,
    is_terminal: bool,
}

impl Bar {
    /// A line about `what`; nothing is shown before there is something to show.
    pub fn new(what: &str) -> Bar {
        let now = Instant::now();
        let is_terminal = std::io::stderr().is_terminal();
        // What is done within a moment needs no line.
        Bar { what: what.to_owned(), began: now, next: now + 2 * PAUSE, shown: false, is_terminal }
    }

    /// `done` bytes of `all` are done.
    pub fn show(&mut self, done: u64, all: u64) {
        if !self.is_terminal {
            return;
        }
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + PAUSE;
        self.shown = true;
        let line = line(&self.what, done, all, now - self.began);
        // To the beginning of the line, and away with what is longer there.
        let _ = write!(std::io::stderr(), "\r{line}\x1b[K");
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(what: &str, done: u64, all: u64, passed: Duration) -> String {
    let all = all.max(done).max(1);
    let filled = (u128::from(done) * u128::from(WIDTH) / u128::from(all)) as u64;
    let bar: String = (0..WIDTH).map(|at| if at < filled { '#' } else { '.' }).collect();
    let percent = u128::from(done) * 100 / u128::from(all);
    let pace = done as f64 / passed.as_secs_f64().max(0.001);
    let left = (all - done) as f64 / pace.max(1.0);
    format!(
        "{what} [{bar}] {percent:3} %  {} of {}  {}/s  {} left",
        size(done),
        size(all),
        size(pace as u64),
        span(left as u64)
    )
}

/// Seconds in the two largest units.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line at the beginning, in the midst, at the end, and with sizes that do not fit together.
    #[test]
    fn lines() {
        let line = |done, all| line("x", done, all, Duration::from_secs(2));
        assert_eq!(
            line(0, 1 << 20),
            "x [........................]   0 %  0 B of 1.0 MiB  0 B/s  291 h 16 min left"
        );
        assert_eq!(
            line(1 << 20, 4 << 20),
            "x [######..................]  25 %  1.0 MiB of 4.0 MiB  512.0 KiB/s  6 s left"
        );
        assert_eq!(line(7, 5), "x [########################] 100 %  7 B of 7 B  3 B/s  0 s left");
        assert_eq!(span(61), "1 min 01 s");
    }
}
