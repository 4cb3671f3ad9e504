//! Commands over bitmaps.

use damselfly_tests::random::Random;

/// Makes the lines of a session of bitmaps: few keys of very different lengths, combined with each other.
pub struct Bits {
    pub random: Random,
}

impl Bits {
    const KEYS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "missing"];

    fn key(&mut self) -> &'static str {
        if self.random.below(40) == 0 { "wrong" } else { self.random.pick(&Self::KEYS) }
    }

    fn bit(&mut self) -> u64 {
        let below = self.random.pick(&["8", "100", "3000", "70000"]);
        self.random.below(below.parse().expect("a number"))
    }

    /// The next command.
    pub fn line(&mut self) -> String {
        let key = self.key();
        match self.random.below(12) {
            0..3 => format!("SETBIT {key} {} {}", self.bit(), self.random.below(2)),
            3..7 => {
                let operation = self.random.pick(&["AND", "OR", "XOR", "NOT", "and"]);
                let sources = if operation == "NOT" { 1 } else { 1 + self.random.below(5) };
                let sources: Vec<&str> = (0..sources).map(|_| self.key()).collect();
                format!("BITOP {operation} {key} {}", sources.join(" "))
            }
            7 => format!("BITCOUNT {key}"),
            8 => format!("BITPOS {key} {}", self.random.below(2)),
            9 => format!("STRLEN {key}"),
            10 => format!("SETRANGE {key} {} abcdefgh", self.bit() / 8),
            _ => self.random.pick(&["DEL a", "DEL missing", "SET b 12", "DEBUG DIGEST"]).to_owned(),
        }
    }
}
