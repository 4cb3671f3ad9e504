//! The scanner as its callers see it: the table of edge cases as redis-server 7.0 answers them over a socket, and the
//! promise that packets never show.

use damselfly_protocol::{Limits, ProtocolError, Requests, Scanner, Unfinished, complete, unfinished};

type Request = Vec<Vec<u8>>;

/// A stream and the requests in it.
type Accepted<'a> = (&'a [u8], &'a [&'a [&'a [u8]]]);

/// What the stream says when its bytes arrive in pieces ending at `cuts` (and at the end).
fn scan_in_pieces(
    stream: &[u8],
    cuts: &[usize],
    max_requests: usize,
    limits: &Limits,
    authenticated: bool,
) -> (Vec<Request>, Option<ProtocolError>) {
    let mut scanner = Scanner::new();
    let mut out = Requests::new();
    let mut start = 0;
    let mut found: Vec<Request> = Vec::new();
    let mut joined: Option<(usize, Request)> = None;
    for end in cuts.iter().copied().chain([stream.len()]) {
        loop {
            let buf = &stream[start..end];
            let scan = scanner.scan(buf, &mut out, max_requests, limits, authenticated);
            assert!(scan.consumed <= buf.len());
            for i in 0..out.len() {
                let argv = out.argv(buf, i);
                assert!(!argv.is_empty());
                for (j, span) in argv.spans().iter().enumerate() {
                    assert_eq!(span.len(), argv[j].len());
                    assert_eq!(out.arg(buf, i, j), &argv[j]);
                    if let Some(range) = span.in_buffer() {
                        assert!(range.end <= scan.consumed, "arguments lie in the consumed part");
                    }
                }
                let request: Request = argv.iter().map(<[u8]>::to_vec).collect();
                if let Some((_, joined)) = joined.take_if(|(number, _)| *number == found.len()) {
                    assert_eq!(joined, request, "a request in two buffers is the same");
                }
                found.push(request);
            }
            start += scan.consumed;
            if scan.error.is_some() {
                return (found, scan.error);
            }
            if out.is_empty() {
                break;
            }
        }
        assert!(
            start == end || scanner.wanted() > end - start,
            "an unfinished request wants more than there is: {} of {}",
            scanner.wanted(),
            end - start
        );
        if let Some(Unfinished { start: at, len, behind }) = unfinished(&stream[start..end])
            && at + len + 2 == scanner.wanted()
            && let Some((apart, rest)) = stream[start + at..].split_at_checked(len + 2)
            && let Some(end) = complete(rest, behind)
        {
            let rest = [&stream[start..start + at], &rest[..end]].concat();
            out.join(&rest, at, apart[..len].to_vec());
            let argv = out.argv(&rest, 0);
            joined = Some((found.len(), argv.iter().map(<[u8]>::to_vec).collect()));
        }
    }
    (found, None)
}

fn scan(stream: &[u8]) -> (Vec<Request>, Option<ProtocolError>) {
    scan_in_pieces(stream, &[], 1024, &Limits::default(), true)
}

fn words(requests: &[&[&[u8]]]) -> Vec<Request> {
    requests.iter().map(|request| request.iter().map(|arg| arg.to_vec()).collect()).collect()
}

/// Every accepted form, each observed at redis-server 7.0.15.
#[test]
fn accepted_as_redis_does() {
    let ping: &[&[&[u8]]] = &[&[b"PING"]];
    let cases: &[Accepted<'_>] = &[
        (b"*1\r\n$4\r\nPING\r\n", ping),
        (b"*0\r\nPING\r\n", ping),
        (b"*-1\r\nPING\r\n", ping),
        (b"*-10\r\nPING\r\n", ping),
        (b"*-9223372036854775808\r\nPING\r\n", ping),
        (b"\r\n\n\r\nPING\r\n", ping),
        (b"   \r\nPING\n", ping),
        // Only the CR is looked for; the byte behind it and the two behind the data may be anything.
        (b"*1\rx$4\rxPINGxx", ping),
        (b"*1\r\n$4\r\nPINGxx*1\r\n$4\r\nPING\r\n", &[&[b"PING"], &[b"PING"]]),
        (b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n", &[&[b"ECHO", b""]]),
        (b"*1\r\n$0\r\n\r\n", &[&[b""]]),
        (b"ECHO\ta\r\n", &[&[b"ECHO", b"a"]]),
        (b"ECHO a\rb\r\n", &[&[b"ECHO", b"a", b"b"]]),
        (b"ECHO a\r\r\n", &[&[b"ECHO", b"a"]]),
        (b"ECHO\x0ba\x0c\r\n", &[&[b"ECHO\x0ba\x0c"]]),
        (b"ECHO \x0b\r\n", &[&[b"ECHO"]]),
        (b"ECHO \"\\x41\\n\\r\\t\\b\\a\\q\\xZZ\"\r\n", &[&[b"ECHO", b"A\n\r\t\x08\x07qxZZ"]]),
        (b"ECHO \"\\x00b\"\r\n", &[&[b"ECHO", b"\x00b"]]),
        (b"ECHO \"\\x0\"\r\n", &[&[b"ECHO", b"x0"]]),
        (b"ECHO 'a\\'b'\r\n", &[&[b"ECHO", b"a'b"]]),
        (b"ECHO '\\n'\r\n", &[&[b"ECHO", b"\\n"]]),
        (b"ECHO a\\n\r\n", &[&[b"ECHO", b"a\\n"]]),
        (b"ECHO \"\"\r\n", &[&[b"ECHO", b""]]),
        (b"ECHO \"a\" \r\n", &[&[b"ECHO", b"a"]]),
        (b"ECHO \"a\"\x0b\r\n", &[&[b"ECHO", b"a"]]),
        (b"ECHO a\"b c\"\r\n", &[&[b"ECHO", b"ab c"]]),
        (b"ECHO a'b c' \"d\" e\n", &[&[b"ECHO", b"ab c", b"d", b"e"]]),
        (b"ECHO \"a\\\\\"\r\n", &[&[b"ECHO", b"a\\"]]),
        (b"ECHO \"a\\\"\"\r\n", &[&[b"ECHO", b"a\""]]),
        (b"ECHO \"a\rb\"\r\n", &[&[b"ECHO", b"a\rb"]]),
        // Redis never answers this one; see the head of request.rs.
        (b"ECHO a\x00b\r\n", &[&[b"ECHO", b"a\x00b"]]),
        // Unfinished.
        (b"", &[]),
        (b"*1\n$4\nPING\n", &[]),
        (b"*2147483", &[]),
        (b"*1048576\r\n", &[]),
        (b"*1\r\n$536870912\r\n", &[]),
        (b"*1\r\n!", &[]),
        (b"ECHO \"\\", &[]),
    ];
    for (stream, expected) in cases {
        assert_eq!(scan(stream), (words(expected), None), "{}", stream.escape_ascii());
    }
}

/// Every refusal with the reply's bytes, each observed at redis-server 7.0.15, which closes the connection then.
#[test]
fn refused_as_redis_does() {
    let cases: &[(&[u8], &[u8])] = &[
        (b"*-0\r\n", b"invalid multibulk length"),
        (b"*\r\n", b"invalid multibulk length"),
        (b"*+1\r\n", b"invalid multibulk length"),
        (b"*01\r\n", b"invalid multibulk length"),
        (b"*1x\r\n", b"invalid multibulk length"),
        (b"* 1\r\n", b"invalid multibulk length"),
        (b"*2147483648\r\n", b"invalid multibulk length"),
        (b"*9223372036854775808\r\n", b"invalid multibulk length"),
        (b"*-9223372036854775809\r\n", b"invalid multibulk length"),
        (b"*1\r\nfoo\r\n", b"expected '$', got 'f'"),
        (b"*1\r\n:5\r\n", b"expected '$', got ':'"),
        (b"*1\r\n\r\n", b"expected '$', got ' '"),
        (b"*1\r\n\n\r\n", b"expected '$', got ' '"),
        (b"*1\r\n\xff\r\n", b"expected '$', got '\xff'"),
        // Looks like a short length to the fast path, but for its marker.
        (b"*1\r\n#4\r\nPING\r\n", b"expected '$', got '#'"),
        (b"*1\r\n$-1\r\n", b"invalid bulk length"),
        (b"*1\r\n$04\r\nPING\r\n", b"invalid bulk length"),
        (b"*1\r\n$\r\n\r\n", b"invalid bulk length"),
        (b"*1\r\n$536870913\r\n", b"invalid bulk length"),
        (b"*2\r\n$3\r\nGET\r\n$99999999999\r\n", b"invalid bulk length"),
        (b"*1\r\n$9223372036854775808\r\n", b"invalid bulk length"),
        (b"\"PING\n", b"unbalanced quotes in request"),
        (b"ECHO \"a\"b\r\n", b"unbalanced quotes in request"),
        (b"ECHO 'a'b\r\n", b"unbalanced quotes in request"),
        (b"ECHO a\"b c\"d\r\n", b"unbalanced quotes in request"),
        (b"ECHO \"\\\r\n", b"unbalanced quotes in request"),
        (b"ECHO \"\r\n", b"unbalanced quotes in request"),
    ];
    for (stream, text) in cases {
        let (requests, error) = scan(stream);
        let mut reply = Vec::new();
        error.unwrap_or_else(|| panic!("{} is refused", stream.escape_ascii())).write_reply(&mut reply);
        assert_eq!(reply, [b"-ERR Protocol error: ", *text, b"\r\n"].concat(), "{}", stream.escape_ascii());
        assert!(requests.is_empty());
    }
}

/// What came before the offence is good and comes out.
#[test]
fn requests_before_an_error_are_returned() {
    let stream = b"PING\r\n*2\r\n$4\r\nECHO\r\n$1\r\na\r\n*1\r\n!\r\n";
    let (requests, error) = scan(stream);
    assert_eq!(requests, words(&[&[b"PING"], &[b"ECHO", b"a"]]));
    assert_eq!(error, Some(ProtocolError::ExpectedDollar(b'!')));
    let scan = Scanner::new().scan(stream, &mut Requests::new(), 1024, &Limits::default(), true);
    assert_eq!(scan.consumed, stream.len() - b"*1\r\n!\r\n".len());
}

/// Lines of 64 KiB pass and one byte more does not, whether the line's end is there or not.
#[test]
fn longest_line() {
    let long = 64 * 1024;
    for (head, error) in [
        (&b"*"[..], ProtocolError::TooBigMultibulkCount),
        (b"*1\r\n$", ProtocolError::TooBigBulkCount),
        (b"", ProtocolError::TooBigInline),
    ] {
        let line_start = head.len().saturating_sub(1);
        let mut stream = head.to_vec();
        stream.resize(line_start + long, b'1');
        assert_eq!(scan(&stream), (vec![], None), "{error}");
        stream.push(b'1');
        assert_eq!(scan(&stream).1, Some(error));
        stream.extend_from_slice(b"\r\n");
        assert_eq!(scan(&stream).1, Some(error));
    }
    let mut line = vec![b'a'; long];
    line.push(b'\n');
    assert_eq!(scan(&line).0, vec![vec![vec![b'a'; long]]]);
}

/// Limits hold where they are declared, before any byte of the argument arrives.
#[test]
fn configured_limits() {
    let limits = Limits { max_bulk_len: 10, max_multibulk_len: 3, max_inline_len: 20, max_request_len: 40 };
    let error = |stream: &[u8]| scan_in_pieces(stream, &[], 1, &limits, true).1;
    assert_eq!(error(b"*3\r\n$10\r\n"), None);
    assert_eq!(error(b"*4\r\n"), Some(ProtocolError::InvalidMultibulkLength));
    assert_eq!(error(b"*3\r\n$11\r\n"), Some(ProtocolError::InvalidBulkLength));
    // 4 + 2 * (5 + 10 + 2) = 38 bytes; an argument more and the request has 38 + 4 + 2.
    assert_eq!(error(b"*2\r\n$10\r\n0123456789\r\n$10\r\n0123456789\r\n"), None);
    assert_eq!(
        error(b"*3\r\n$10\r\n0123456789\r\n$10\r\n0123456789\r\n$0\r\n"),
        Some(ProtocolError::RequestTooBig)
    );
    assert_eq!(error(&[b'a'; 21]), Some(ProtocolError::TooBigInline));
}

/// Before AUTH: ten arguments of 16 KiB, as Redis, and one request at a time, as the first may be AUTH.
#[test]
fn unauthenticated_limits() {
    let limits = Limits::default();
    let error = |stream: &[u8]| scan_in_pieces(stream, &[], 1024, &limits, false).1;
    assert_eq!(error(b"*10\r\n$16384\r\n"), None);
    assert_eq!(error(b"*11\r\n"), Some(ProtocolError::UnauthenticatedMultibulkLength));
    assert_eq!(error(b"*1\r\n$16385\r\n"), Some(ProtocolError::UnauthenticatedBulkLength));
    assert_eq!(error(b"*1048577\r\n"), Some(ProtocolError::InvalidMultibulkLength));

    let auth = b"*2\r\n$4\r\nAUTH\r\n$2\r\npw\r\n";
    let stream = [&auth[..], b"*11\r\n", &b"$1\r\na\r\n".repeat(11)].concat();
    let (mut scanner, mut out) = (Scanner::new(), Requests::new());
    let scan = scanner.scan(&stream, &mut out, 1024, &limits, false);
    assert_eq!((scan.consumed, scan.error, out.len()), (auth.len(), None, 1));
    let scan = scanner.scan(&stream[auth.len()..], &mut out, 1024, &limits, true);
    assert_eq!((scan.error, out.len(), out.spans(0).len()), (None, 1, 11));
}

/// Nobody who waits gets memory for a promise: what is kept depends on the bytes that came.
#[test]
fn declared_lengths_allocate_nothing() {
    let (mut scanner, mut out) = (Scanner::new(), Requests::new());
    let limits = Limits::default();
    let stream = b"*1048576\r\n$536870912\r\nabc";
    let scan = scanner.scan(stream, &mut out, 1024, &limits, true);
    assert_eq!((scan.consumed, scan.error), (0, None));
    assert_eq!(out.allocated(), 0);
    assert_eq!(scanner.wanted(), 22 + 536_870_912 + 2);
    assert!(size_of::<Scanner>() <= 32);

    // A million arguments leave no more than a modest list behind.
    let mut stream = b"*1000000\r\n".to_vec();
    stream.extend(b"$0\r\n\r\n".repeat(1_000_000));
    scanner = Scanner::new();
    scanner.scan(&stream, &mut out, 1024, &limits, true);
    assert_eq!(out.spans(0).len(), 1_000_000);
    assert!(out.allocated() < 4 * stream.len(), "spans take at most four times their bytes");
    out.clear();
    assert!(out.allocated() < 64 * 1024);
}

/// A request of a million arguments in 1 KiB pieces. Rescanning it each time would read three thousand million
/// bytes; scanned once it takes no time, and each call's work is bounded by what came.
#[test]
fn long_requests_are_scanned_once() {
    let mut stream = b"*1000000\r\n".to_vec();
    for i in 0..1_000_000 {
        stream.extend_from_slice(if i % 2 == 0 { b"$3\r\nkey\r\n" } else { b"$1\r\nv\r\n" });
    }
    let cuts: Vec<usize> = (0..stream.len()).step_by(1024).collect();
    let (requests, error) = scan_in_pieces(&stream, &cuts, 1, &Limits::default(), true);
    assert_eq!(error, None);
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].len(), 1_000_000);
    assert!(requests[0].iter().step_by(2).all(|arg| arg == b"key"));
}

/// A line that is longer than any length, found unfinished many times, must not hide the earlier lines of its
/// request, which are looked for again from the start.
#[test]
fn unfinished_line_behind_a_large_argument() {
    let mut stream = b"*2\r\n$1000000\r\n".to_vec();
    stream.resize(stream.len() + 1_000_000, b'x');
    stream.extend_from_slice(b"\r\n$3");
    let cut = stream.len();
    stream.extend_from_slice(b"\r\nabc\r\n");
    let (requests, error) = scan_in_pieces(&stream, &[cut], 1, &Limits::default(), true);
    assert_eq!(error, None);
    assert_eq!(requests[0][1], b"abc");
}

struct XorShift(u64);

impl XorShift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// Bytes that are nearly requests: whole ones, edge cases, and now and then a flipped or missing byte.
fn nearly_requests(random: &mut XorShift) -> Vec<u8> {
    let pieces: &[&[u8]] = &[
        b"*1\r\n$4\r\nPING\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"\r\n",
        b"PING\n",
        b"SET \"a\\x41\\\"\" 'b c'\r\n",
        b"ECHO a\"b\" \t c\r\n",
        b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n",
        b"*2\r\n$12\r\nabcdefghijkl\r\n$1\r\nx\r\n",
        b"$1\r\n",
        b"*",
        b"\"",
    ];
    let mut stream = Vec::new();
    for _ in 0..1 + random.below(8) {
        match random.below(8) {
            0 => {
                // Longer than what is simply scanned again.
                let count = 10 + random.below(40);
                stream.extend_from_slice(format!("*{count}\r\n").as_bytes());
                for _ in 0..count {
                    let len = random.below(30);
                    stream.extend_from_slice(format!("${len}\r\n").as_bytes());
                    stream.resize(stream.len() + len, b'a');
                    stream.extend_from_slice(b"\r\n");
                }
            }
            1 => stream.resize(stream.len() + random.below(120), b'7'),
            _ => stream.extend_from_slice(pieces[random.below(pieces.len())]),
        }
    }
    if random.below(3) == 0 {
        let at = random.below(stream.len().max(1));
        if let Some(byte) = stream.get_mut(at) {
            *byte = b"*$-019\r\n\"'\\ x\0"[random.below(14)];
        }
    }
    if random.below(8) == 0 && !stream.is_empty() {
        stream.remove(random.below(stream.len()));
    }
    stream
}

/// The promise itself: any cut of any stream, any batch size, gives what the whole stream gives at once.
#[test]
fn packets_never_show() {
    let mut random = XorShift(0x1234_5678_9ABC_DEF1);
    let tight = Limits { max_bulk_len: 64, max_multibulk_len: 45, max_inline_len: 100, max_request_len: 900 };
    let (mut errors, mut total) = (0, 0);
    for round in 0..20_000 {
        let stream = nearly_requests(&mut random);
        let limits = if round % 2 == 0 { Limits::default() } else { tight };
        let authenticated = round % 3 != 0;
        let whole = scan_in_pieces(&stream, &[], usize::MAX, &limits, authenticated);
        errors += usize::from(whole.1.is_some());
        total += whole.0.len();
        let every_byte: Vec<usize> = (0..stream.len()).collect();
        let mut some: Vec<usize> = (0..random.below(6)).map(|_| random.below(stream.len() + 1)).collect();
        some.sort_unstable();
        for cuts in [every_byte, some] {
            let max_requests = 1 + random.below(4);
            let pieces = scan_in_pieces(&stream, &cuts, max_requests, &limits, authenticated);
            assert_eq!(pieces, whole, "{} cut at {cuts:?}", stream.escape_ascii());
        }
    }
    assert!(errors > 2_000 && total > 20_000, "the generator makes both kinds: {errors}, {total}");
}

/// What is said of requests that end within their last argument, and that the argument can be taken away and put
/// back.
#[test]
fn last_argument_in_its_own_buffer() {
    let head = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000000\r\n";
    let all = |start, len, behind| Some(Unfinished { start, len, behind });
    assert_eq!(unfinished(head), all(head.len(), 1_000_000, 0));
    assert_eq!(unfinished(b"*1\r\n$4\r\nPING\r"), all(8, 4, 0));
    assert_eq!(unfinished(b"*2\r\n$9\r\nPING"), all(8, 9, 1));
    for other in
        [&b""[..], b"*", b"*1\r\n", b"*0\r\n", b"*-1\r\n", b"*1\r\n$4\r\nPING\r\n", b"*1\r\n$4\r", b"PING"]
    {
        assert_eq!(unfinished(other), None, "{}", other.escape_ascii());
    }
    assert_eq!(unfinished(b"*17\r\n$1\r\na\r\n"), None, "many arguments are the scanner's");

    let mut requests = Requests::new();
    requests.join(head, head.len(), vec![b'x'; 1_000_000]);
    assert_eq!(requests.argv(head, 0).iter().map(<[u8]>::len).collect::<Vec<_>>(), [3, 1, 1_000_000]);
    let last = requests.take_apart(5);
    assert_eq!((last.len(), &requests.argv(head, 0)[2]), (1_000_000, &b"xxxxx"[..]));
    requests.give_apart(last);
    assert_eq!(requests.argv(head, 0)[2].len(), 1_000_000);

    let behind = b"$2\r\nEX\r\n$2\r\n10\r\n";
    assert_eq!([complete(behind, 2), complete(behind, 1), complete(behind, 0)], [Some(16), Some(8), Some(0)]);
    assert_eq!([complete(behind, 3), complete(&behind[..15], 2), complete(b"+2\r\nEX\r\n", 1)], [None; 3]);
    let whole = [&b"*5\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000000\r\n"[..], behind].concat();
    requests.join(&whole, head.len(), vec![b'x'; 1_000_000]);
    assert_eq!(requests.apart(), 2);
    let argv = requests.argv(&whole, 0);
    assert_eq!((argv.len(), argv[2].len(), &argv[3], &argv[4]), (5, 1_000_000, &b"EX"[..], &b"10"[..]));
}
