//! Clients that wait for data, and transactions and scripts that bring it.

use damselfly_tests::executor::{Executor, Tcp};
use damselfly_tests::random::Random;
use damselfly_tests::reply::Reply;

/// Keys of lists and of sorted sets: with four shards, most waiters wait for keys of several.
const KEYS_PER_TYPE: u64 = 5;

/// One scene: who waits for what, in this order, and what happens then, all at once.
pub struct Scene {
    waiters: Vec<String>,
    deed: Vec<String>,
    by_script: bool,
}

impl Scene {
    /// The next one.
    pub fn new(random: &mut Random) -> Scene {
        let waiters = (0..1 + random.below(4)).map(|_| wait(random)).collect();
        let deed = (0..1 + random.below(6)).map(|_| deed(random)).collect();
        Scene { waiters, deed, by_script: random.below(3) == 0 }
    }

    /// What happens, line by line.
    pub fn lines(&self) -> Vec<String> {
        if !self.by_script {
            let begin = std::iter::once("MULTI".to_owned());
            return begin.chain(self.deed.iter().cloned()).chain(["EXEC".to_owned()]).collect();
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
        let mut replies = vec![crate::call(server, "FLUSHALL")];
        let mut ids = Vec::new();
        for (number, line) in self.waiters.iter().enumerate() {
            let name = format!("waiter{number}");
            ids.push(of(server, &name, "CLIENT ID"));
            let words: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
            server.send(&name, &words).unwrap_or_else(|error| panic!("{line}: {error}"));
            let waiting = format!("blocked_clients:{}\r\n", number + 1);
            while !crate::call(server, "INFO clients").text().is_some_and(|text| contains(text, &waiting)) {}
        }
        for line in self.lines() {
            replies.push(crate::call(server, &line));
        }
        for id in ids {
            let Reply::Int(id) = id else { panic!("{id} is no number") };
            replies.push(crate::call(server, &format!("CLIENT UNBLOCK {id}")));
        }
        for number in 0..self.waiters.len() {
            let name = format!("waiter{number}");
            replies.push(server.receive(&name).unwrap_or_else(|error| panic!("{name}: {error}")));
        }
        for number in 0..KEYS_PER_TYPE {
            replies.push(crate::call(server, &format!("LRANGE l{number} 0 -1")));
            replies.push(crate::call(server, &format!("ZRANGE z{number} 0 -1 WITHSCORES")));
        }
        replies
    }
}

fn contains(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|window| window == part.as_bytes())
}

fn of(server: &mut Tcp, client: &str, line: &str) -> Reply {
    let words: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
    server.call(client, &words).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn keys(random: &mut Random, kind: char) -> String {
    let first = random.below(KEYS_PER_TYPE);
    let count = 1 + random.below(3);
    let names: Vec<String> =
        (0..count).map(|at| format!("{kind}{}", (first + at * 2) % KEYS_PER_TYPE)).collect();
    names.join(" ")
}

fn wait(random: &mut Random) -> String {
    match random.below(8) {
        0..3 => format!("BLPOP {} 0", keys(random, 'l')),
        3..5 => format!("BRPOP {} 0", keys(random, 'l')),
        5 => format!("BLMPOP 0 2 l{} l{} LEFT COUNT 2", random.below(2), 2 + random.below(3)),
        6 => format!("BZPOPMIN {} 0", keys(random, 'z')),
        _ => format!("BZPOPMAX {} 0", keys(random, 'z')),
    }
}

fn deed(random: &mut Random) -> String {
    let (list, zset) = (random.below(KEYS_PER_TYPE), random.below(KEYS_PER_TYPE));
    match random.below(20) {
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
        _ => "PING".to_owned(),
    }
}
