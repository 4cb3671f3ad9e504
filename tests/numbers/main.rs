//! Numbers at their edges, in every place of every command that takes one, on Redis and on our server side by side:
//! the reply and what the keys hold then must be the same.
//!
//! `lines.txt` has the commands, each with an ordinary number in each place. Whether all places are there is asked of
//! COMMAND DOCS: Redis types the arguments of the commands that both have. A difference is printed as a line that can
//! be typed into both, with what is in its block before it. `DAMSELFLY_LINE=ZADD cargo test --test numbers` plays the
//! lines that begin so.

use std::collections::BTreeSet;
use std::env;
use std::fmt::Write;
use std::ops::Range;

use damselfly_tests::client::Client;
use damselfly_tests::reply::Reply;
use damselfly_tests::servers::{Kind, Server};

const LINES: &str = include_str!("lines.txt");

/// What stands in the place of a number. None asks a server for gigabytes where it means a length.
#[rustfmt::skip]
const NUMBERS: &[&str] = &[
    // Spellings.
    "", "0", "-0", "+0", "00", "1", "+1", "-1", "--1", "01", "-01", " 1", "1 ", "\t1", "1\n", "1\0", "1x", "x", "-", "+",
    ".", "1.0", ".5", "5.", "-.5", "0.0", "-0.0", "1e3", "1E3", "1e", "1e+", "1e-2", "0x10", "0x", "0x1p4", "1_000",
    "1,5", "(1", "[1", "1-1", "1-", "*", "$", "é",
    // Bounds of 31, 32, 53 and 64 bits.
    "2147483647", "2147483648", "-2147483648", "-2147483649", "4294967295", "4294967296", "9007199254740991",
    "9007199254740992", "9007199254740993", "999999999999999999", "1000000000000000000", "4611686018427387904",
    "9223372036854775806", "9223372036854775807", "9223372036854775808", "-9223372036854775807",
    "-9223372036854775808", "-9223372036854775809", "18446744073709551614", "18446744073709551615",
    "18446744073709551616", "9223372036854775", "9223372036854776", "-9223372036854775",
    "100000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000001",
    // Doubles.
    "1e17", "1e18", "1e22", "1e23", "1e308", "-1e308", "1.7976931348623157e308", "1.7976931348623159e308", "1e309",
    "-1e309", "1e-307", "2.2250738585072014e-308", "5e-324", "4e-324", "2e-324", "1e-400", "inf", "-inf", "+inf", "Inf",
    "infinity", "-Infinity", "infx", "nan", "-nan", "nan(1)", "0.1", "0.30000000000000004", "3.0000000000000001",
    "12345678901234567", "1.2345678901234567", "123456789.12345678", "0.000001", "0.0000001", "1e21", "1e20",
    "179.99999999999999", "180", "180.00001", "-180", "85.05112878", "85.05112879", "-85.05112878", "90",
];

/// Numbers that are left out where they stand for a length of hundreds of megabytes or for as many steps, or for a
/// wait of weeks.
const TOO_MUCH: &[(&str, &[&str])] = &[
    ("SETBIT", &["2147483647", "2147483648", "4294967295"]),
    ("BITFIELD", &["2147483647", "2147483648", "4294967295"]),
    ("SRANDMEMBER", &["-2147483648", "-2147483649", "-9223372036854775", "-9223372036854775807"]),
    ("HRANDFIELD", &["-2147483648", "-2147483649", "-9223372036854775", "-9223372036854775807"]),
    ("ZRANDMEMBER", &["-2147483648", "-2147483649", "-9223372036854775", "-9223372036854775807"]),
];

/// Arguments that `lines.txt` leaves out.
const LEFT_OUT: &[(&str, &str)] = &[("client|pause", "stops everybody"), ("lolwut", "draws something else")];

/// A difference that is meant.
struct Different {
    /// The beginning of the commands.
    command: &'static str,
    /// The numbers; none stands for all.
    numbers: &'static [&'static str],
    /// Part of our answer.
    ours: &'static str,
    /// What docs/compatibility.md says about it.
    reason: &'static str,
}

const NUL: &str = "a NUL byte in a number is refused";
const SIGN: &str = "a number in an id has no sign";
const TIMEOUT: &str = "a timeout of BLPOP and its kin that no number of milliseconds can express is refused";

#[rustfmt::skip]
const DIFFERENT: &[Different] = &[
    Different { command: "", numbers: &["1\0"], ours: "!ERR", reason: NUL },
    Different { command: "X", numbers: &[], ours: "Invalid stream ID", reason: SIGN },
    Different { command: "XCLAIM", numbers: &[], ours: "Unrecognized XCLAIM option", reason: SIGN },
    Different { command: "", numbers: &[], ours: "timeout is out of range", reason: TIMEOUT },
    Different {
        command: "LPOS", numbers: &["-9223372036854775808"], ours: "value is out of range",
        reason: "the smallest rank is refused",
    },
    Different {
        command: "XAUTOCLAIM", numbers: &[], ours: "[\"0-0\"",
        reason: "XAUTOCLAIM takes any COUNT",
    },
];

/// Keys of the lines.
const KEYS: &[&str] = &["k", "s", "d"];

/// Differences that are shown.
const SHOWN: usize = 60;

/// Lines of the same keys.
#[derive(Clone, Default)]
struct Block {
    setup: Vec<Vec<String>>,
    read: Vec<Vec<String>>,
    commands: Vec<Vec<String>>,
}

fn words(line: &str) -> Vec<String> {
    let (mut words, mut rest) = (Vec::new(), line.trim());
    while !rest.is_empty() {
        let (word, behind) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').expect("quotes are closed"),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = behind.trim_start();
    }
    words
}

fn blocks() -> Vec<Block> {
    let mut blocks = vec![Block::default()];
    for line in LINES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let last = blocks.last_mut().expect("one from the start");
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        match first {
            "setup" if last.commands.is_empty() => last.setup.push(words(rest)),
            "setup" => blocks.push(Block { setup: vec![words(rest)], ..Block::default() }),
            "read" => last.read.push(words(rest)),
            _ => last.commands.push(words(line)),
        }
    }
    blocks
}

/// Where numbers are in a word.
fn places(word: &str) -> Vec<Range<usize>> {
    let is_number = |text: &str| {
        text.starts_with(['-', '.', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])
            && text.parse::<f64>().is_ok()
    };
    let start = usize::from(word.starts_with(['(', '[', '#', 'i', 'u']));
    let (text, end) = (&word[start..], word.len());
    let parts = match text.split_once('-') {
        Some((ms, seq)) if !is_number(text) => {
            vec![(ms, start..start + ms.len()), (seq, end - seq.len()..end)]
        }
        _ => vec![(text, start..end)],
    };
    parts.into_iter().filter(|(part, _)| is_number(part)).map(|(_, place)| place).collect()
}

/// Removes from two replies what two servers need not have in common.
fn comparable(command: &[String], reply: &Reply) -> Reply {
    /// Times to live of two servers are this close.
    const CLOSE_MS: i64 = 60_000;
    let name = command[0].as_str();
    match reply {
        // Deadlines are counted from when each server got the command.
        // It depends on what the session before left, and on whether that has expired.
        Reply::Int(_) if name == "DEL" => Reply::Null,
        // A little less than it was, and never more: rounded up, whole and half minutes stay what they were.
        Reply::Int(left) if name == "PTTL" && *left > 0 => Reply::Int((left - 1) / CLOSE_MS + 1),
        Reply::Array(elements) => {
            let mut elements: Vec<Reply> = elements.iter().map(|one| comparable(command, one)).collect();
            match name {
                "SPOP" | "SRANDMEMBER" | "HRANDFIELD" | "ZRANDMEMBER" => elements.fill(Reply::Null),
                // Cursors are the servers' own, and so is what was slow.
                "SCAN" | "SLOWLOG" => elements.clear(),
                // Tables have different orders.
                "HGETALL" | "HSCAN" | "SSCAN" | "ZSCAN" => elements.sort(),
                // The length; behind it come the nodes of a tree that is another one here.
                "XINFO" => elements.truncate(2),
                // For how long an entry has been pending.
                "XPENDING" if elements.len() == 4 && matches!(elements[2], Reply::Int(_)) => {
                    elements[2] = Reply::Null;
                }
                _ => {}
            }
            Reply::Array(elements)
        }
        Reply::Bulk(_) if matches!(name, "SPOP" | "SRANDMEMBER" | "HRANDFIELD" | "ZRANDMEMBER") => {
            Reply::Null
        }
        other => other.clone(),
    }
}

/// One line with one number in one place.
struct Case {
    number: &'static str,
    command: Vec<String>,
}

fn cases(line: &[String], at: usize, place: &Range<usize>) -> Vec<Case> {
    let too_much =
        TOO_MUCH.iter().filter(|(name, _)| line[0] == *name).flat_map(|(_, numbers)| numbers.iter());
    let too_much: BTreeSet<&str> = too_much.copied().collect();
    NUMBERS
        .iter()
        .filter(|number| !too_much.contains(*number))
        .map(|number| {
            let mut command = line.to_vec();
            command[at].replace_range(place.clone(), number);
            Case { number, command }
        })
        .collect()
}

/// All of a case: keys removed, made, the command, what they hold.
fn session(block: &Block, case: &Case) -> Vec<Vec<String>> {
    let remove = std::iter::once("DEL").chain(KEYS.iter().copied()).map(str::to_owned).collect();
    let mut session = vec![remove];
    session.extend(block.setup.iter().cloned());
    session.push(case.command.clone());
    session.extend(block.read.iter().cloned());
    session
}

/// A command that can be typed into redis-cli.
fn shown(command: &[String]) -> String {
    let quoted = |word: &String| {
        let plain = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
        if plain { word.clone() } else { format!("\"{}\"", word.as_bytes().escape_ascii()) }
    };
    command.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

fn is_meant(case: &Case, ours: &Reply) -> bool {
    let (line, ours) = (shown(&case.command), ours.to_string());
    DIFFERENT.iter().any(|different| {
        line.starts_with(different.command)
            && (different.numbers.is_empty() || different.numbers.contains(&case.number))
            && ours.contains(different.ours)
    })
}

/// What both servers answer to sessions.
fn answers(servers: &mut [Client; 2], sessions: &[Vec<Vec<String>>]) -> [Vec<Vec<Reply>>; 2] {
    let requests: Vec<Vec<String>> = sessions.iter().flatten().cloned().collect();
    servers.iter_mut().for_each(|server| server.send(&requests));
    servers.each_mut().map(|server| {
        let mut answer = |command: &Vec<String>| comparable(command, &server.reply());
        sessions.iter().map(|session| session.iter().map(&mut answer).collect()).collect()
    })
}

/// Whether a difference is one of time: a key that is to live for a millisecond is still there for one server and not for
/// the other. Then it does not come every time.
fn is_of_time(servers: &mut [Client; 2], block: &Block, session: &[Vec<String>]) -> bool {
    let shows_deadline = block.read.iter().any(|command| command[0] == "PTTL");
    shows_deadline
        && (0..50).any(|_| {
            let [theirs, ours] = answers(servers, &[session.to_vec()]);
            theirs == ours
        })
}

/// Plays all cases of a place in one go, and tells the differences.
fn play(servers: &mut [Client; 2], block: &Block, cases: &[Case], differences: &mut Vec<String>) {
    let sessions: Vec<Vec<Vec<String>>> = cases.iter().map(|case| session(block, case)).collect();
    let [theirs, ours] = answers(servers, &sessions);
    for (case, (session, (theirs, ours))) in cases.iter().zip(sessions.iter().zip(theirs.iter().zip(&ours))) {
        let differs = (0..session.len()).find(|&at| theirs[at] != ours[at]);
        let Some(at) = differs else { continue };
        // What the keys hold follows from what was answered.
        let answer = block.setup.len() + 1;
        if is_meant(case, &ours[answer]) && theirs[answer] != ours[answer] {
            continue;
        }
        if is_of_time(servers, block, session) {
            continue;
        }
        let mut text = format!("{}   (with {:?})", shown(&case.command), case.number);
        let behind = if session[at] == case.command {
            String::new()
        } else {
            format!("\n  then {}", shown(&session[at]))
        };
        write!(text, "{behind}\n  redis: {}\n  ours:  {}", theirs[at], ours[at]).expect("memory");
        differences.push(text);
    }
}

fn start(kind: Kind) -> (Server, Client) {
    let server = Server::start(kind, &[]).unwrap_or_else(|error| panic!("{error}"));
    let client = Client::open(server.address());
    (server, client)
}

/// Every number in every place of every line.
#[test]
fn same_as_redis() {
    let (_redis, theirs) = start(Kind::Redis);
    let (_ours, ours) = start(Kind::Damselfly { threads: 2 });
    let mut servers = [theirs, ours];
    let wanted = env::var("DAMSELFLY_LINE").unwrap_or_default();
    let (mut differences, mut played) = (Vec::new(), 0);
    for block in blocks() {
        for line in block.commands.iter().filter(|line| shown(line).starts_with(&wanted)) {
            for (at, word) in line.iter().enumerate().skip(1) {
                for place in places(word) {
                    let cases = cases(line, at, &place);
                    played += cases.len();
                    play(&mut servers, &block, &cases, &mut differences);
                }
            }
        }
    }
    assert!(played > 0, "no line begins with {wanted:?}");
    let (count, shown) = (differences.len(), differences.len().min(SHOWN));
    assert_eq!(count, 0, "{count} of {played} cases differ:\n{}", differences[..shown].join("\n"));
}

/// A field of a map in RESP2.
fn field<'a>(map: &'a Reply, name: &str) -> Option<&'a Reply> {
    let pairs = map.elements().unwrap_or_default();
    pairs.chunks(2).find(|pair| pair[0].text() == Some(name.as_bytes())).map(|pair| &pair[1])
}

fn text(reply: Option<&Reply>) -> Option<String> {
    reply.and_then(Reply::text).map(|text| String::from_utf8_lossy(text).into_owned())
}

/// An argument that is a number.
struct Number {
    name: String,
    /// The word before it, if there must be one.
    token: Option<String>,
}

/// The numbers among arguments.
fn numbers_of(arguments: &Reply, token: Option<&String>, found: &mut Vec<Number>) {
    for argument in arguments.elements().unwrap_or_default() {
        let own = text(field(argument, "token"));
        let token = own.as_ref().or(token);
        if let Some(parts) = field(argument, "arguments") {
            numbers_of(parts, token, found);
        } else if text(field(argument, "type"))
            .is_some_and(|kind| matches!(kind.as_str(), "integer" | "double" | "unix-time"))
        {
            let name = text(field(argument, "name")).expect("it has a name");
            found.push(Number { name, token: token.cloned() });
        }
    }
}

/// Visits every command and subcommand with its numbers.
fn for_each_command(docs: &Reply, visit: &mut dyn FnMut(&str, Vec<Number>)) {
    for pair in docs.elements().unwrap_or_default().chunks(2) {
        let mut found = Vec::new();
        if let Some(arguments) = field(&pair[1], "arguments") {
            numbers_of(arguments, None, &mut found);
        }
        visit(&text(Some(&pair[0])).expect("a name"), found);
        if let Some(subcommands) = field(&pair[1], "subcommands") {
            for_each_command(subcommands, visit);
        }
    }
}

/// Who meets a difference can read about it.
#[test]
fn differences_are_documented() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/compatibility.md");
    let text = std::fs::read_to_string(path).expect("it is there");
    for different in DIFFERENT {
        assert!(text.contains(different.reason), "not in docs/compatibility.md: {}", different.reason);
    }
}

/// Every argument that is a number to Redis is in a line.
#[test]
fn every_place_is_there() {
    let (_redis, mut redis) = start(Kind::Redis);
    let (_ours, mut ours) = start(Kind::Damselfly { threads: 1 });
    let list = ours.call(&["COMMAND", "LIST"]);
    let names: BTreeSet<String> =
        list.elements().expect("a list").iter().filter_map(|name| text(Some(name))).collect();
    let lines: Vec<Vec<String>> = blocks().into_iter().flat_map(|block| block.commands).collect();
    let mut lacking = Vec::new();
    // One at a time: the client's parser is not made for a reply of all.
    let known = redis.call(&["COMMAND", "LIST"]);
    let docs: Vec<Reply> = known
        .elements()
        .expect("a list")
        .iter()
        .filter_map(|name| text(Some(name)))
        .flat_map(|name| redis.call(&["COMMAND", "DOCS", &name]).elements().expect("a map").to_vec())
        .collect();
    for_each_command(&Reply::Array(docs), &mut |name, numbers| {
        if !names.contains(name) || LEFT_OUT.iter().any(|(left_out, _)| *left_out == name) {
            return;
        }
        let own: Vec<String> = name.split('|').map(str::to_ascii_uppercase).collect();
        let of_command = || lines.iter().filter(|line| line.starts_with(&own));
        for Number { name: number, token } in numbers {
            let is_there = of_command().any(|line| match &token {
                Some(token) => line.iter().any(|word| word == token),
                None => line[own.len()..].iter().any(|word| !places(word).is_empty()),
            });
            if !is_there {
                lacking.push(format!("{name}: {} {number}", token.unwrap_or_default()));
            }
        }
    });
    assert!(lacking.is_empty(), "add lines with these numbers:\n{}", lacking.join("\n"));
}
