//! Words of a script line: quoting, variables, repetition, ranges.
//!
//! ```text
//! word         GET  (a  [1  key:1  *            up to the next blank; brackets are ordinary characters
//! "a b\r\n"    escapes \n \r \t \a \0 \\ \" \$ \xHH; variables are replaced
//! 'a $b'       nothing is special but the closing quote
//! "ab"*100     the quoted part, a hundred times
//! $name ${n}x  a variable; a `$` before anything but a lower-case letter is an ordinary character
//! e{1..3}      three words: e1 e2 e3
//! #            an unquoted word that starts with # begins a comment
//! ```
//!
//! Both sides of a line use these words, so an argument can be copied into an expectation as it stands.

/// The longest word that repetition may build: enough for the 512 MB limits to be tested from below.
const WORD_LEN_MAX: usize = 64 << 20;

/// The most words that one range may make.
const RANGE_MAX: i64 = 100_000;

/// Where variables come from; `None` means that there is no such variable.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<Vec<u8>>;

/// One word after replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    pub bytes: Vec<u8>,
    /// Some part of it stood in quotes.
    pub quoted: bool,
    /// Some part of it came from a variable, so it may differ from server to server.
    pub variable: bool,
}

impl Word {
    /// The word as text, if it was written without quotes.
    pub fn bare(&self) -> Option<&str> {
        if self.quoted { None } else { std::str::from_utf8(&self.bytes).ok() }
    }
}

/// A position in one line.
pub struct Lexer<'a> {
    source: &'a str,
    at: usize,
    lookup: Lookup<'a>,
    /// Whether brackets and braces end a word, as they do in expectations.
    brackets: bool,
}

impl<'a> Lexer<'a> {
    /// Reads command words.
    pub fn command(source: &'a str, lookup: Lookup<'a>) -> Self {
        Self { source, at: 0, lookup, brackets: false }
    }

    /// Reads expectation words.
    pub fn expectation(source: &'a str, lookup: Lookup<'a>) -> Self {
        Self { source, at: 0, lookup, brackets: true }
    }

    /// Reads `source`, a part of this line, with the same variables.
    pub fn nested<'b>(&'b self, source: &'b str) -> Lexer<'b> {
        Lexer { source, at: 0, lookup: self.lookup, brackets: self.brackets }
    }

    /// Where the next word starts, blanks skipped.
    pub fn position(&mut self) -> usize {
        while self.peek().is_some_and(|byte| byte == b' ' || byte == b'\t') {
            self.at += 1;
        }
        self.at
    }

    /// The next byte that is not blank; `None` at the end of the line or at a comment.
    pub fn ahead(&mut self) -> Option<u8> {
        self.position();
        self.peek().filter(|byte| *byte != b'#')
    }

    /// Takes one byte that `ahead` has shown.
    pub fn bump(&mut self) {
        self.at += 1;
    }

    /// What is left of the line.
    pub fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    /// Takes everything up to `end`, which is taken too.
    pub fn until(&mut self, end: char) -> Result<&'a str, String> {
        let rest = self.rest();
        let size = rest.find(end).ok_or_else(|| format!("no {end:?} after {rest:?}"))?;
        self.at += size + end.len_utf8();
        Ok(&rest[..size])
    }

    fn peek(&self) -> Option<u8> {
        self.source.as_bytes().get(self.at).copied()
    }

    /// The next word or, from a range, words. `None` at the end of the line or at a comment.
    pub fn words(&mut self) -> Result<Option<Vec<Word>>, String> {
        if self.ahead().is_none() {
            return Ok(None);
        }
        let start = self.at;
        let mut word = Word { bytes: Vec::new(), quoted: false, variable: false };
        let mut range: Option<(usize, i64, i64)> = None;
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' => break,
                b'[' | b']' | b'}' if self.brackets => break,
                b'"' | b'\'' => {
                    let quoted_from = word.bytes.len();
                    word.quoted = true;
                    self.at += 1;
                    self.quoted_part(byte, &mut word)?;
                    self.repetition(quoted_from, &mut word)?;
                }
                b'{' => match self.range()? {
                    Some(_) if range.is_some() => return Err("two ranges in one word".into()),
                    Some((low, high)) => range = Some((word.bytes.len(), low, high)),
                    None if self.brackets => break,
                    None => {
                        word.bytes.push(byte);
                        self.at += 1;
                    }
                },
                b'$' => self.variable(&mut word)?,
                _ => {
                    word.bytes.push(byte);
                    self.at += 1;
                }
            }
        }
        if self.at == start {
            return Err(format!("unexpected {:?}", self.rest()));
        }
        let Some((place, low, high)) = range else { return Ok(Some(vec![word])) };
        let numbered = |number: i64| {
            let mut bytes = word.bytes[..place].to_vec();
            bytes.extend_from_slice(number.to_string().as_bytes());
            bytes.extend_from_slice(&word.bytes[place..]);
            Word { bytes, quoted: word.quoted, variable: word.variable }
        };
        Ok(Some((low..=high).map(numbered).collect()))
    }

    /// All words to the end of the line.
    pub fn all(&mut self) -> Result<Vec<Word>, String> {
        let mut all = Vec::new();
        while let Some(words) = self.words()? {
            all.extend(words);
        }
        Ok(all)
    }

    fn quoted_part(&mut self, quote: u8, word: &mut Word) -> Result<(), String> {
        loop {
            let byte = self.peek().ok_or("quote is not closed")?;
            self.at += 1;
            match byte {
                _ if byte == quote => return Ok(()),
                b'\\' if quote == b'"' => {
                    let escape = self.peek().ok_or("quote is not closed")?;
                    self.at += 1;
                    word.bytes.push(match escape {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'a' => 7,
                        b'0' => 0,
                        b'\\' | b'"' | b'$' => escape,
                        b'x' => {
                            let digits =
                                self.source.get(self.at..self.at + 2).ok_or("\\x needs two digits")?;
                            self.at += 2;
                            u8::from_str_radix(digits, 16).map_err(|_| format!("not a byte: \\x{digits}"))?
                        }
                        _ => return Err(format!("unknown escape \\{}", char::from(escape))),
                    });
                }
                b'$' if quote == b'"' => {
                    self.at -= 1;
                    self.variable(word)?;
                }
                _ => word.bytes.push(byte),
            }
        }
    }

    /// `*N` directly behind a quote.
    fn repetition(&mut self, from: usize, word: &mut Word) -> Result<(), String> {
        let Some(rest) = self.rest().strip_prefix('*') else { return Ok(()) };
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let times: usize = rest[..digits].parse().map_err(|_| format!("no number after * in {rest:?}"))?;
        self.at += 1 + digits;
        let part = word.bytes.split_off(from);
        if part.len().saturating_mul(times) > WORD_LEN_MAX {
            return Err(format!("a word of more than {WORD_LEN_MAX} bytes"));
        }
        word.bytes.extend_from_slice(&part.repeat(times));
        Ok(())
    }

    /// `{1..9}`, or nothing if the braces hold anything else, such as a hash tag.
    fn range(&mut self) -> Result<Option<(i64, i64)>, String> {
        let Some((inside, _)) = self.rest()[1..].split_once('}') else { return Ok(None) };
        let Some((low, high)) = inside.split_once("..") else { return Ok(None) };
        let (Ok(low), Ok(high)) = (low.parse::<i64>(), high.parse::<i64>()) else { return Ok(None) };
        if high.saturating_sub(low) >= RANGE_MAX {
            return Err(format!("a range of more than {RANGE_MAX} words"));
        }
        self.at += inside.len() + 2;
        Ok(Some((low, high)))
    }

    fn variable(&mut self, word: &mut Word) -> Result<(), String> {
        let rest = &self.rest()[1..];
        let braced = rest.starts_with('{');
        let name_at = usize::from(braced);
        let name_len = rest[name_at..]
            .bytes()
            .take_while(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_')
            .count();
        let name = &rest[name_at..name_at + name_len];
        if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
            word.bytes.push(b'$');
            self.at += 1;
            return Ok(());
        }
        self.at += 1 + name_at + name_len;
        if braced {
            self.until('}')?;
        }
        let value = (self.lookup)(name).ok_or_else(|| format!("no variable ${name}"))?;
        word.bytes.extend_from_slice(&value);
        word.variable = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<String> {
        let lookup = |name: &str| (name == "x").then(|| b"VALUE".to_vec());
        let words = Lexer::command(source, &lookup).all().expect("lexes");
        words.into_iter().map(|word| String::from_utf8_lossy(&word.bytes).into_owned()).collect()
    }

    /// Each line of the table in the module's head.
    #[test]
    fn grammar() {
        assert_eq!(words("GET (a [1 *  # comment"), ["GET", "(a", "[1", "*"]);
        assert_eq!(words(r#""a b\r\n\x41\"" '$x \'"#), ["a b\r\nA\"", "$x \\"]);
        assert_eq!(words(r#"pre"ab"*3"c" """#), ["preabababc", ""]);
        assert_eq!(words(r#"$x "${x}s" $ $1 \$"#), ["VALUE", "VALUEs", "$", "$1", "\\$"]);
        assert_eq!(words("e{1..3} {tag} {a..b}"), ["e1", "e2", "e3", "{tag}", "{a..b}"]);
        assert_eq!(words(r##""#" a#b"##), ["#", "a#b"]);
    }

    /// Mistakes in a script are reported, never guessed around.
    #[test]
    fn mistakes() {
        for source in
            ["\"open", "\"\\q\"", "$unknown", "{1..2}{1..2}", "\"a\"*", "\"\\x4\"", "e{1..999999999}"]
        {
            assert!(Lexer::command(source, &|_| None).all().is_err(), "{source}");
        }
    }
}
