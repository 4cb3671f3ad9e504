//! The request scanner against any bytes in any packets: it does not panic, how the bytes were cut changes nothing,
//! spans stay inside what was consumed, a last argument may lie apart, and memory stays within a multiple of the input.
//!
//! Input: a byte of settings, a byte that says how many of the next bytes are packet lengths, those, the stream.

#![no_main]

use damselfly_protocol::{Limits, ProtocolError, Requests, Scanner, Unfinished, complete, unfinished};
use libfuzzer_sys::fuzz_target;

/// Small, so that a fuzzer's short inputs reach every limit.
const TIGHT: Limits =
    Limits { max_bulk_len: 300, max_multibulk_len: 60, max_inline_len: 200, max_request_len: 2000 };

/// Bytes of list per byte of stream: 8 for a span out of at least 2 (`a `), doubled by growth, and as much again for
/// the ends of requests; small streams round up. Of the stream and not of the packet: the list keeps a little.
const MEMORY_FACTOR: usize = 16;
const MEMORY_FLOOR: usize = 1024;

#[derive(Default, Debug, PartialEq)]
struct Outcome {
    requests: Vec<Vec<Vec<u8>>>,
    error: Option<ProtocolError>,
}

fn scan(
    stream: &[u8],
    packets: impl Iterator<Item = usize>,
    max_requests: usize,
    limits: &Limits,
    authenticated: bool,
) -> Outcome {
    let (mut scanner, mut list) = (Scanner::new(), Requests::new());
    let mut outcome = Outcome::default();
    let (mut start, mut end) = (0, 0);
    // A request that was put together from two buffers before all of it had come, and its number.
    let mut joined: Option<(usize, Vec<Vec<u8>>)> = None;
    for packet in packets.chain([stream.len()]) {
        end = stream.len().min(end + packet);
        loop {
            let buf = &stream[start..end];
            let scan = scanner.scan(buf, &mut list, max_requests, limits, authenticated);
            assert!(scan.consumed <= buf.len());
            assert!(list.len() <= max_requests);
            assert!(list.allocated() <= MEMORY_FLOOR + MEMORY_FACTOR * stream.len());
            for i in 0..list.len() {
                let argv = list.argv(buf, i);
                assert!(!argv.is_empty());
                assert!(
                    argv.spans().iter().filter_map(|span| span.in_buffer()).all(|r| r.end <= scan.consumed)
                );
                let request: Vec<Vec<u8>> = argv.iter().map(<[u8]>::to_vec).collect();
                if let Some((_, joined)) = joined.take_if(|(number, _)| *number == outcome.requests.len()) {
                    assert_eq!(joined, request);
                }
                outcome.requests.push(request);
            }
            start += scan.consumed;
            if scan.error.is_some() {
                outcome.error = scan.error;
                return outcome;
            }
            if list.is_empty() {
                break;
            }
        }
        assert!(start == end || scanner.wanted() > end - start);
        if let Some(Unfinished { start: at, len, behind }) = unfinished(&stream[start..end])
            && at + len + 2 == scanner.wanted()
            && let Some((apart, rest)) = stream[start + at..].split_at_checked(len + 2)
            && let Some(end) = complete(rest, behind)
        {
            let rest = [&stream[start..start + at], &rest[..end]].concat();
            list.join(&rest, at, apart[..len].to_vec());
            let argv = list.argv(&rest, 0);
            joined = Some((outcome.requests.len(), argv.iter().map(<[u8]>::to_vec).collect()));
        }
    }
    outcome
}

fuzz_target!(|data: &[u8]| {
    let [settings, packet_count, rest @ ..] = data else { return };
    let (packets, stream) = rest.split_at(usize::from(*packet_count).min(rest.len()));
    let limits = if settings & 1 == 0 { Limits::default() } else { TIGHT };
    let authenticated = settings & 2 == 0;
    let max_requests = 1 + usize::from(settings >> 2);

    let whole = scan(stream, std::iter::empty(), usize::MAX, &limits, authenticated);
    let cut = scan(stream, packets.iter().map(|len| usize::from(*len)), max_requests, &limits, authenticated);
    assert_eq!(cut, whole);
    let bytes = scan(stream, std::iter::repeat_n(1, stream.len()), max_requests, &limits, authenticated);
    assert_eq!(bytes, whole);
});
