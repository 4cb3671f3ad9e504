//! Clients that wait for data, and commands, transactions and scripts that bring it.

use damselfly_tests::executor::{Executor, Tcp};
use damselfly_tests::random::Random;
use damselfly_tests::reply::Reply;

use crate::Line;

/// Keys of lists and of sorted sets: with four shards, most waiters wait for keys of several.
const KEYS_PER_TYPE: u64 = 5;

/// How the data comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// All at once.
    Script,
    Transaction,
    /// One command after the other, each in one pipeline with a look at all keys.
    Alone,
}

/// One scene: who waits for what, in this order, and what happens then.
pub struct Scene {
    waiters: Vec<String>,
    deed: Vec<String>,
    how: How,
}

impl Scene {
    /// The next one.
    pub fn new(random: &mut Random) -> Scene {
        let waiters = (0..1 + random.below(4)).map(|_| wait(random)).collect();
        let deed = (0..1 + random.below(6)).map(|_| deed(random)).collect();
        let how = [How::Script, How::Transaction, How::Alone][random.below(3) as usize];
        Scene { waiters, deed, how }
    }

    /// What happens, line by line.
    pub fn lines(&self) -> Vec<String> {
        match self.how {
            How::Script => {}
            How::Transaction => {
                let begin = std::iter::once("MULTI".to_owned());
                return begin.chain(self.deed.iter().cloned()).chain(["EXEC".to_owned()]).collect();
            }
            How::Alone => return self.deed.clone(),
        }
        let calls: Vec<String> = self
            .deed
            .iter()
            .map(|line| {
                let words: Vec<String> = line.split(' ').map(|word| format!("'{word}'")).collect();
                format!("redis.call({})", words.join(","))
            })
            .collect();
        vec![format!("EVAL {} 0", calls.join(";"))]
    }

    /// The whole scene, for whoever has to look at it.
    pub fn show(&self) -> String {
        [self.waiters.as_slice(), &self.lines()].concat().join("\n")
    }

    /// Plays it: what was answered to the deed, to a CLIENT UNBLOCK for each waiter, to the waiters, and what is left.
    pub fn play(&self, server: &mut Tcp) -> Vec<Reply> {
        let mut replies = vec![crate::call(server, "FLUSHALL"), crate::call(server, "SET wrong value")];
        let mut ids = Vec::new();
        for (number, line) in self.waiters.iter().enumerate() {
            let name = format!("waiter{number}");
            ids.push(crate::call_as(server, &name, "CLIENT ID"));
            server
                .send(&name, &crate::words_of(&crate::line_of(line)))
                .unwrap_or_else(|error| panic!("{line}: {error}"));
            let waiting = format!("blocked_clients:{}\r\n", number + 1);
            while !crate::call(server, "INFO clients").text().is_some_and(|text| contains(text, &waiting)) {}
        }
        for line in self.lines() {
            if self.how == How::Alone {
                let lines: Vec<Line> = std::iter::once(crate::line_of(&line)).chain(looks()).collect();
                replies.extend(crate::call_all(server, &lines));
            } else {
                replies.push(crate::call(server, &line));
            }
        }
        // Before anybody who still waits has left.
        replies.extend(crate::call_all(server, &looks()));
        for id in ids {
            let Reply::Int(id) = id else { panic!("{id} is no number") };
            replies.push(crate::call(server, &format!("CLIENT UNBLOCK {id}")));
        }
        for number in 0..self.waiters.len() {
            let name = format!("waiter{number}");
            replies.push(server.receive(&name).unwrap_or_else(|error| panic!("{name}: {error}")));
        }
        replies.extend(crate::call_all(server, &looks()));
        replies
    }
}

/// Shows all keys.
fn looks() -> Vec<Line> {
    (0..KEYS_PER_TYPE)
        .flat_map(|number| [format!("LRANGE l{number} 0 -1"), format!("ZRANGE z{number} 0 -1 WITHSCORES")])
        .map(|line| crate::line_of(&line))
        .collect()
}

fn contains(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|window| window == part.as_bytes())
}

fn keys(random: &mut Random, kind: char) -> String {
    let first = random.below(KEYS_PER_TYPE);
    let count = 1 + random.below(3);
    let names: Vec<String> =
        (0..count).map(|at| format!("{kind}{}", (first + at * 2) % KEYS_PER_TYPE)).collect();
    names.join(" ")
}

fn wait(random: &mut Random) -> String {
    let (source, target) = (random.below(KEYS_PER_TYPE), random.below(KEYS_PER_TYPE));
    match random.below(13) {
        0..3 => format!("BLPOP {} 0", keys(random, 'l')),
        3..5 => format!("BRPOP {} 0", keys(random, 'l')),
        5 => format!("BLMPOP 0 2 l{} l{} LEFT COUNT 2", random.below(2), 2 + random.below(3)),
        6 => format!("BZPOPMIN {} 0", keys(random, 'z')),
        7 => format!("BRPOPLPUSH l{source} l{target} 0"),
        8 => format!("BLMOVE l{source} wrong LEFT LEFT 0"),
        9..12 => format!("BLMOVE l{source} l{target} LEFT RIGHT 0"),
        _ => format!("BZPOPMAX {} 0", keys(random, 'z')),
    }
}

fn deed(random: &mut Random) -> String {
    let (list, zset) = (random.below(KEYS_PER_TYPE), random.below(KEYS_PER_TYPE));
    match random.below(23) {
        0..6 => format!("RPUSH l{list} a b"),
        6..9 => format!("LPUSH l{list} c"),
        9..13 => format!("ZADD z{zset} {} m", random.below(9)),
        13 => format!("DEL l{list}"),
        14 => format!("DEL l{list} l{}", (list + 1) % KEYS_PER_TYPE),
        15 => format!("LPOP l{list}"),
        16 => format!("RPOPLPUSH l{list} l{}", random.below(KEYS_PER_TYPE)),
        17 => {
            format!("ZUNIONSTORE z{zset} 2 z{} z{}", random.below(KEYS_PER_TYPE), random.below(KEYS_PER_TYPE))
        }
        18 => format!("COPY l{list} l{} REPLACE", (list + 1) % KEYS_PER_TYPE),
        19 => format!("RENAME l{list} l{}", random.below(KEYS_PER_TYPE)),
        20 => format!("SORT l{list} ALPHA STORE l{}", random.below(KEYS_PER_TYPE)),
        21 => format!("RPUSH l{list} d e f"),
        _ => "PING".to_owned(),
    }
}
