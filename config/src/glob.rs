//! Glob patterns as Redis understands them: `*`, `?`, `[a-z]`, `[^a]`, `\x`.
//!
//! KEYS, SCAN MATCH, PSUBSCRIBE, ACL rules and CONFIG GET match one pattern against many texts, so a pattern
//! is compiled once. Redis' own matcher calls itself at every star, which makes `*a*a*a*a*b` exponential in
//! the number of stars (later versions bound it). Every element of a pattern but the star takes exactly one
//! byte, hence a pattern is a list of segments of fixed length with stars between them: the first segment is
//! anchored at the start, the last at the end, and each one between is taken at its leftmost place, because
//! taking it earlier never makes a later one fail. That is O(text x pattern) at worst, without recursion, and
//! mostly `memchr`-like in practice.
//!
//! The corners are Redis': an unclosed class ends with the pattern, `[]` matches nothing and `[^]`
//! everything, `[z-a]` is `[a-z]`, an escape inside a class is exact even when case is ignored, and a lone
//! `\` at the end is itself. One corner is not: stars alone match the empty text, which Redis' matcher denies
//! for two or more.

/// Bits of the bytes a class contains.
type ByteSet = [u64; 4];

/// One byte's worth of a pattern.
#[derive(Clone, Copy, Debug)]
enum Element {
    /// Exactly this byte.
    Byte(u8),
    /// `?`
    Any,
    /// The class at this index.
    Class(u32),
}

/// What stands between two stars.
#[derive(Clone, Debug)]
enum Segment {
    /// Bytes compared as they are: the common case.
    Literal(Box<[u8]>),
    /// Anything else.
    Mixed(Box<[Element]>),
}

impl Segment {
    fn len(&self) -> usize {
        match self {
            Segment::Literal(bytes) => bytes.len(),
            Segment::Mixed(elements) => elements.len(),
        }
    }
}

/// A compiled pattern.
///
/// ```
/// use damselfly_config::glob::Pattern;
///
/// let users = Pattern::new(b"user:[0-9]*:name");
/// assert!(users.matches(b"user:17:name"));
/// assert!(!users.matches(b"user:x:name"));
/// ```
#[derive(Clone, Debug)]
pub struct Pattern {
    /// Never empty; between two of them there is a star. The inner ones are never of length 0.
    segments: Box<[Segment]>,
    classes: Box<[ByteSet]>,
    /// What the segments take together: a shorter text cannot match.
    len_min: usize,
    ignore_case: bool,
}

impl Pattern {
    /// Compiles `pattern`; upper and lower case differ. Every sequence of bytes is a pattern.
    pub fn new(pattern: &[u8]) -> Pattern {
        Pattern::compile(pattern, false)
    }

    /// Compiles `pattern`; ASCII letters match in either case.
    pub fn ignoring_case(pattern: &[u8]) -> Pattern {
        Pattern::compile(pattern, true)
    }

    fn compile(pattern: &[u8], ignore_case: bool) -> Pattern {
        let mut segments = Vec::new();
        let mut classes = Vec::new();
        let mut elements = Vec::new();
        let mut at = 0;
        while at < pattern.len() {
            let byte = pattern[at];
            at += 1;
            match byte {
                b'*' => {
                    // Only the first segment may be empty: it says that the text may begin with anything.
                    if !elements.is_empty() || segments.is_empty() {
                        segments.push(segment(std::mem::take(&mut elements), ignore_case));
                    }
                }
                b'?' => elements.push(Element::Any),
                b'[' => {
                    let (class, end) = class(pattern, at, ignore_case);
                    at = end;
                    elements.push(Element::Class(classes.len() as u32));
                    classes.push(class);
                }
                b'\\' if at < pattern.len() => {
                    elements.push(Element::Byte(pattern[at]));
                    at += 1;
                }
                byte => elements.push(Element::Byte(byte)),
            }
        }
        // The last segment may be empty as well: then the text may end with anything.
        segments.push(segment(elements, ignore_case));
        let len_min = segments.iter().map(Segment::len).sum();
        Pattern { segments: segments.into(), classes: classes.into(), len_min, ignore_case }
    }

    /// Whether the whole of `text` fits.
    pub fn matches(&self, text: &[u8]) -> bool {
        if text.len() < self.len_min {
            return false;
        }
        let (first, rest) = self.segments.split_first().expect("a pattern has a segment");
        let Some((last, inner)) = rest.split_last() else {
            return text.len() == first.len() && self.fits(first, text);
        };
        // `len_min` fits, so head and tail do not overlap.
        let (head, text) = text.split_at(first.len());
        let (mut middle, tail) = text.split_at(text.len() - last.len());
        if !self.fits(first, head) || !self.fits(last, tail) {
            return false;
        }
        for segment in inner {
            let Some(place) = self.find(segment, middle) else { return false };
            middle = &middle[place + segment.len()..];
        }
        true
    }

    /// Whether the pattern is nothing but stars, so that a scan need not look at the texts at all.
    pub fn matches_everything(&self) -> bool {
        self.len_min == 0 && self.segments.len() > 1
    }

    /// The text itself, when the pattern has no wildcards: then a lookup replaces a scan.
    pub fn literal(&self) -> Option<&[u8]> {
        match &*self.segments {
            [Segment::Literal(bytes)] if !self.ignore_case => Some(bytes),
            _ => None,
        }
    }

    /// Leftmost place of `segment` in `text`.
    fn find(&self, segment: &Segment, text: &[u8]) -> Option<usize> {
        let len = segment.len();
        let last = text.len().checked_sub(len)?;
        if let (Segment::Literal(bytes), false) = (segment, self.ignore_case) {
            let mut from = 0;
            while from <= last {
                from += text[from..=last].iter().position(|byte| *byte == bytes[0])?;
                if text[from..from + len] == **bytes {
                    return Some(from);
                }
                from += 1;
            }
            return None;
        }
        (0..=last).find(|from| self.fits(segment, &text[*from..from + len]))
    }

    /// Whether `text`, which is as long as `segment`, fits it.
    ///
    /// The empty segment is not compared: its box points nowhere, and the vector loads of `memcmp` cost 150
    /// ns there, masked out or not, as the processor takes an assist for the address that is not mapped.
    fn fits(&self, segment: &Segment, text: &[u8]) -> bool {
        match segment {
            _ if text.is_empty() => true,
            Segment::Literal(bytes) if self.ignore_case => bytes.eq_ignore_ascii_case(text),
            Segment::Literal(bytes) => **bytes == *text,
            Segment::Mixed(elements) => elements.iter().zip(text).all(|(element, byte)| match element {
                Element::Byte(wanted) if self.ignore_case => wanted.eq_ignore_ascii_case(byte),
                Element::Byte(wanted) => wanted == byte,
                Element::Any => true,
                Element::Class(index) => contains(&self.classes[*index as usize], *byte),
            }),
        }
    }
}

/// Matches once. For a pattern that is used again, keep a [`Pattern`].
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    Pattern::new(pattern).matches(text)
}

fn segment(elements: Vec<Element>, ignore_case: bool) -> Segment {
    let literal: Option<Box<[u8]>> = elements
        .iter()
        .map(|element| match element {
            Element::Byte(byte) if ignore_case => Some(byte.to_ascii_lowercase()),
            Element::Byte(byte) => Some(*byte),
            _ => None,
        })
        .collect();
    literal.map_or_else(|| Segment::Mixed(elements.into()), Segment::Literal)
}

/// Reads the class whose first byte is at `at`. Returns it and where the pattern goes on.
fn class(pattern: &[u8], mut at: usize, ignore_case: bool) -> (ByteSet, usize) {
    let mut set = [0; 4];
    let negated = pattern.get(at) == Some(&b'^');
    at += usize::from(negated);
    loop {
        match pattern[at.min(pattern.len())..] {
            [] => break,
            [b'\\', escaped, ..] => {
                insert(&mut set, escaped);
                at += 2;
            }
            [b']', ..] => {
                at += 1;
                break;
            }
            [from, b'-', to, ..] => {
                // Redis folds the ends before it orders them, and the byte it compares.
                let fold = |byte: u8| if ignore_case { byte.to_ascii_lowercase() } else { byte };
                let (from, to) = (fold(from).min(fold(to)), fold(from).max(fold(to)));
                (0..=u8::MAX)
                    .filter(|byte| (from..=to).contains(&fold(*byte)))
                    .for_each(|byte| insert(&mut set, byte));
                at += 3;
            }
            [byte, ..] => {
                insert(&mut set, byte);
                if ignore_case {
                    insert(&mut set, byte.to_ascii_lowercase());
                    insert(&mut set, byte.to_ascii_uppercase());
                }
                at += 1;
            }
        }
    }
    (if negated { set.map(|bits| !bits) } else { set }, at)
}

fn insert(set: &mut ByteSet, byte: u8) {
    set[usize::from(byte >> 6)] |= 1 << (byte & 63);
}

fn contains(set: &ByteSet, byte: u8) -> bool {
    set[usize::from(byte >> 6)] & 1 << (byte & 63) != 0
}

#[cfg(test)]
mod tests {
    use super::{Pattern, matches};

    /// The corners are Redis' own: patterns and texts of awkward letters, with the answers redis-server gave.
    #[test]
    fn answers_as_redis_does() {
        let mut texts = Vec::new();
        let mut patterns = 0;
        for line in include_str!("../tests/globs.txt").lines() {
            if let Some(text) = line.strip_prefix("text ") {
                texts.push(text);
            } else if let Some(rest) = line.strip_prefix("glob ") {
                let (pattern, indices) = rest.split_once(' ').unwrap_or((rest, ""));
                let expected: Vec<usize> =
                    indices.split(' ').filter_map(|index| index.parse().ok()).collect();
                let compiled = Pattern::new(pattern.as_bytes());
                let found: Vec<usize> =
                    (0..texts.len()).filter(|index| compiled.matches(texts[*index].as_bytes())).collect();
                assert_eq!(found, expected, "{pattern}");
                patterns += 1;
            }
        }
        assert_eq!((texts.len(), patterns), (120, 400));
    }

    /// A second opinion that shares no code: the definition, read from left to right, for patterns without
    /// classes.
    fn by_definition(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|from| by_definition(rest, &text[from..])),
            ([b'?', rest @ ..], [_, tail @ ..]) => by_definition(rest, tail),
            ([b'\\', byte, rest @ ..], [head, tail @ ..]) => byte == head && by_definition(rest, tail),
            ([byte, rest @ ..], [head, tail @ ..]) => byte == head && by_definition(rest, tail),
            _ => false,
        }
    }

    #[test]
    fn answers_by_definition() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut draw = |letters: &[u8], len_max: u64| {
            let mut next = || {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed
            };
            let len = next() % (len_max + 1);
            (0..len).map(|_| letters[(next() % letters.len() as u64) as usize]).collect::<Vec<u8>>()
        };
        for _ in 0..200_000 {
            let (pattern, text) = (draw(b"aab*?\\", 8), draw(b"aab*\\", 10));
            let expected = by_definition(&pattern, &text);
            assert_eq!(matches(&pattern, &text), expected, "{pattern:?} {text:?}");
        }
    }

    /// Thirty stars against a long text: Redis 7.0's matcher would not come back.
    #[test]
    fn many_stars_are_no_bomb() {
        let pattern = Pattern::new(&b"a*".repeat(30));
        let mut text = vec![b'a'; 100_000];
        assert!(pattern.matches(&text));
        let bomb = Pattern::new(&[b"a*".repeat(30), b"[b]?c".to_vec()].concat());
        assert!(!bomb.matches(&text));
        text.extend(b"bxc");
        assert!(bomb.matches(&text));
    }

    #[test]
    fn case_may_be_ignored() {
        let pattern = Pattern::ignoring_case(b"MAX[m-z]e*-Policy");
        assert!(!pattern.matches(b"maxmemory"));
        assert!(pattern.matches(b"maxMemory-POLICY"));
        // An escape inside a class is exact all the same.
        assert!(Pattern::ignoring_case(b"[a]").matches(b"A"));
        assert!(!Pattern::ignoring_case(br"[\a]").matches(b"A"));
    }

    #[test]
    fn shortcuts_say_what_the_pattern_is() {
        for everything in ["*", "**", "***"] {
            assert!(Pattern::new(everything.as_bytes()).matches_everything());
            assert!(matches(everything.as_bytes(), b""));
        }
        for something in ["", "?*", "a", "[*", r"\*"] {
            assert!(!Pattern::new(something.as_bytes()).matches_everything(), "{something}");
        }
        assert_eq!(Pattern::new(br"a\*b").literal(), Some(&b"a*b"[..]));
        assert_eq!(Pattern::new(b"a*b").literal(), None);
        assert_eq!(Pattern::new(b"[a]").literal(), None);
    }
}
