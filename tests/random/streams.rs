//! Commands over streams: ids are small, so that they meet; consumer groups and their pending entries.

use std::fmt::Write;

use damselfly_tests::random::Random;

/// Makes the lines of a session of streams. Ids are small, so that they meet; nodes are small, so that there are
/// many.
pub struct Streams {
    pub random: Random,
    pub next: u64,
}

impl Streams {
    fn key(&mut self) -> &'static str {
        self.random.pick(&["a", "b", "c", "a", "b", "wrong", "other"])
    }

    fn group(&mut self) -> &'static str {
        self.random.pick(&["g", "h", "g", "h", "i"])
    }

    fn consumer(&mut self) -> &'static str {
        self.random.pick(&["alice", "bob", "carol"])
    }

    fn id(&mut self) -> String {
        match self.random.below(12) {
            0 => String::from("0"),
            1 => String::from("18446744073709551615-18446744073709551615"),
            2 => self.random.pick(&["abc", "-", "+", "$", "1-", "-1", "5-x", "01-2"]).to_owned(),
            3..6 => self.random.below(self.next + 2).to_string(),
            _ => {
                let back = self.random.below(30);
                format!("{}-{}", self.next.saturating_sub(back), self.random.below(4))
            }
        }
    }

    /// Never the highest: a stream that ends with it takes no more entries, and when XSETID sets its last id back
    /// below a deleted entry, the nodes are no longer those of Redis.
    fn id_below_max(&mut self) -> String {
        let id = self.id();
        if id.len() > 30 { String::from("0-1") } else { id }
    }

    fn ids(&mut self) -> String {
        let count = 1 + self.random.below(5);
        (0..count).map(|_| self.id()).collect::<Vec<_>>().join(" ")
    }

    fn edge(&mut self) -> String {
        match self.random.below(5) {
            0 => String::from("-"),
            1 => String::from("+"),
            2 => format!("({}", self.id()),
            _ => self.id(),
        }
    }

    fn trimming(&mut self) -> String {
        let sign = self.random.pick(&["", "=", "~", "~"]);
        let mut line = if self.random.below(2) == 0 {
            format!("MAXLEN {sign} {}", self.random.below(60))
        } else {
            format!("MINID {sign} {}", self.next.saturating_sub(self.random.below(40)))
        };
        if self.random.below(4) == 0 {
            write!(line, " LIMIT {}", self.random.below(40)).expect("memory");
        }
        line
    }

    fn add(&mut self) -> String {
        let mut line = format!("XADD {} ", self.key());
        self.random.some(&mut line, &["NOMKSTREAM "], 10);
        if self.random.below(6) == 0 {
            line += &self.trimming();
            line.push(' ');
        }
        self.next += self.random.below(3);
        let (ms, seq) = (self.next, self.random.below(3));
        match self.random.below(4) {
            0 => write!(line, " {ms}-*"),
            1 => write!(line, " {}", self.id_below_max()),
            _ => write!(line, " {ms}-{seq}"),
        }
        .expect("memory");
        let long = "x".repeat(self.random.below(90) as usize);
        for at in 0..1 + self.random.below(3) {
            let name = self.random.pick(&["f", "f", "f", "name"]);
            let value = match self.random.below(4) {
                0 => format!("v{long}"),
                1 => format!("-{}", self.random.below(1 << 40)),
                2 => format!("0{}", self.random.below(100)),
                _ => self.random.below(1000).to_string(),
            };
            write!(line, " {name}{at} {value}").expect("memory");
        }
        line
    }

    fn read(&mut self, of_group: bool) -> String {
        let mut line = String::from("XREAD");
        if of_group {
            write!(line, "GROUP GROUP {} {}", self.group(), self.consumer()).expect("memory");
            self.random.some(&mut line, &["NOACK"], 8);
        }
        self.random.some(&mut line, &["COUNT 3", "COUNT 0", "COUNT 1"], 3);
        let count = 1 + self.random.below(3) as usize;
        line += " STREAMS";
        for _ in 0..count {
            write!(line, " {}", self.random.pick(&["a", "b", "c"])).expect("memory");
        }
        for _ in 0..count {
            let id = match self.random.below(4) {
                // `+` is of later versions.
                0..2 if of_group => String::from(">"),
                0 => String::from("$"),
                _ => Some(self.id()).filter(|id| id != "+").unwrap_or_default(),
            };
            write!(line, " {id}").expect("memory");
        }
        line
    }

    fn claim(&mut self) -> String {
        let (key, group, consumer) = (self.key(), self.group(), self.consumer());
        let idle = self.random.pick(&["0", "0", "1000000", "-5", "x"]);
        if self.random.below(3) == 0 {
            let mut line = format!("XAUTOCLAIM {key} {group} {consumer} {idle} {}", self.edge());
            self.random.some(&mut line, &["JUSTID", "COUNT 2", "COUNT 0"], 3);
            return line;
        }
        let mut line = format!("XCLAIM {key} {group} {consumer} {idle} {}", self.ids());
        let last = format!("LASTID {}", self.id());
        let options = ["FORCE", "JUSTID", "IDLE 5000000", "TIME 1000", "RETRYCOUNT 7", "TIME -1", &last];
        self.random.some(&mut line, &options, 5);
        line
    }

    fn group_line(&mut self) -> String {
        let (key, group, consumer) = (self.key(), self.group(), self.consumer());
        let mut line = match self.random.below(10) {
            0..4 => format!("XGROUP CREATE {key} {group} {}", self.id()),
            4 => format!("XGROUP CREATECONSUMER {key} {group} {consumer}"),
            5 => format!("XGROUP DELCONSUMER {key} {group} {consumer}"),
            6 => format!("XGROUP DESTROY {key} {group}"),
            _ => format!("XGROUP SETID {key} {group} {}", self.id()),
        };
        if line.contains("CREATE ") || line.contains("SETID") {
            self.random.some(
                &mut line,
                &["MKSTREAM", "ENTRIESREAD 3", "ENTRIESREAD -1", "ENTRIESREAD -2"],
                6,
            );
        }
        line
    }

    fn pending(&mut self) -> String {
        let mut line = format!("XPENDING {} {}", self.key(), self.group());
        if self.random.below(3) > 0 {
            self.random.some(&mut line, &["IDLE 0", "IDLE 1000000"], 4);
            let count = self.random.pick(&["10", "2", "0", "-1", "x"]);
            write!(line, " {} {} {count}", self.edge(), self.edge()).expect("memory");
            let consumer = self.consumer();
            self.random.some(&mut line, &[consumer], 3);
        }
        line
    }

    /// The next command.
    pub fn line(&mut self) -> String {
        match self.random.below(100) {
            0..30 => self.add(),
            30..34 => format!("XTRIM {} {}", self.key(), self.trimming()),
            34..40 => format!("XDEL {} {}", self.key(), self.ids()),
            40..46 => format!("XRANGE {} {} {}", self.key(), self.edge(), self.edge()),
            46..50 => format!(
                "XREVRANGE {} {} {} COUNT {}",
                self.key(),
                self.edge(),
                self.edge(),
                self.random.below(5)
            ),
            50..53 => self.read(false),
            53..65 => self.read(true),
            65..69 => format!("XACK {} {} {}", self.key(), self.group(), self.ids()),
            69..74 => self.pending(),
            74..82 => self.claim(),
            82..88 => self.group_line(),
            88..91 => format!("XINFO STREAM {} FULL COUNT {}", self.key(), self.random.below(4)),
            91..93 => format!("XINFO STREAM {}", self.key()),
            93..95 => format!("XINFO GROUPS {}", self.key()),
            95 => format!("XINFO CONSUMERS {} {}", self.key(), self.group()),
            96 => format!("XLEN {}", self.key()),
            97..99 => {
                let key = self.random.pick(&["a", "b", "c", "other"]);
                let id = match self.random.below(4) {
                    0 => self.random.pick(&["0", "1-", "abc", "$", "01-2"]).to_owned(),
                    _ => format!("{}-{}", self.next + self.random.below(3), self.random.below(3)),
                };
                let deleted = format!("MAXDELETEDID {}", self.id());
                let mut line = format!("XSETID {key} {id}");
                self.random.some(&mut line, &["ENTRIESADDED 1000", "ENTRIESADDED 3", &deleted], 3);
                line
            }
            _ => match self.random.below(12) {
                0 => String::from("DEL a"),
                1 => String::from("DEL b"),
                2 => String::from("RENAME a c"),
                3 => String::from("COPY b c REPLACE"),
                4 => String::from("OBJECT ENCODING a"),
                _ => String::from("DEBUG DIGEST"),
            },
        }
    }
}
