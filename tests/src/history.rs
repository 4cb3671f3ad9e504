//! Histories of concurrent commands, and whether they could have happened one after the other.
//!
//! A history is linearisable if its operations can be put into one order that a single thread could have produced: an
//! operation that ended before another began comes first, and every reply is the one that [`Store`], a model of Redis
//! small enough to be read, gives at that place. The search is Wing and Gong's with the memory of Lowe: a set of
//! operations done together with the state it leads to is tried once.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

/// What clients do in one step that must look like one moment: one command, or several as one transaction or script.
pub type Step = Vec<Vec<String>>;

/// A step and what came of it.
#[derive(Clone, Debug)]
pub struct Operation {
    pub client: usize,
    pub step: Step,
    /// Replies of its commands, written as [`Store::run`] writes them. None: it left no trace (EXEC of a transaction
    /// whose keys had changed).
    pub replies: Option<Vec<String>>,
    /// When it was sent and when its reply was there, on one clock.
    pub began: u64,
    pub ended: u64,
    /// Where it is in its client's order, if it was sent before earlier steps of the client were answered: it may
    /// overtake only those that have no key in common with it.
    pub pipelined: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Value {
    Text(String),
    List(VecDeque<String>),
    Set(BTreeSet<String>),
}

/// What Redis would hold and answer, for the few commands that histories are made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Store(BTreeMap<String, Value>);

const WRONG_TYPE: &str = "WRONGTYPE";

impl Store {
    /// Carries out a command. Replies are written flat: `nil`, numbers and text as they are, arrays as `[a b]` (those of
    /// sets sorted), errors as their first word.
    ///
    /// # Panics
    ///
    /// If it does not know the command.
    pub fn run(&mut self, command: &[String]) -> String {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        self.answer(&words).unwrap_or_else(|error| error.to_owned())
    }

    fn answer(&mut self, words: &[&str]) -> Result<String, &'static str> {
        Ok(match words {
            ["SET", key, value] => {
                self.0.insert((*key).to_owned(), Value::Text((*value).to_owned()));
                "OK".to_owned()
            }
            ["GET", key] => self.text(key)?.map_or_else(nil, str::to_owned),
            ["GETSET", key, value] => {
                let old = self.text(key)?.map_or_else(nil, str::to_owned);
                self.0.insert((*key).to_owned(), Value::Text((*value).to_owned()));
                old
            }
            ["INCRBY", key, by] => {
                let old: i64 = self.text(key)?.map_or(Ok(0), |text| text.parse().map_err(|_| "ERR"))?;
                let new = (old + by.parse::<i64>().map_err(|_| "ERR")?).to_string();
                self.0.insert((*key).to_owned(), Value::Text(new.clone()));
                new
            }
            ["MSET", pairs @ ..] => {
                for pair in pairs.chunks(2) {
                    self.0.insert(pair[0].to_owned(), Value::Text(pair[1].to_owned()));
                }
                "OK".to_owned()
            }
            ["MSETNX", pairs @ ..] => {
                let free = pairs.chunks(2).all(|pair| !self.0.contains_key(pair[0]));
                if free {
                    for pair in pairs.chunks(2) {
                        self.0.insert(pair[0].to_owned(), Value::Text(pair[1].to_owned()));
                    }
                }
                u8::from(free).to_string()
            }
            ["MGET", keys @ ..] => {
                let all = keys.iter().map(|key| match self.0.get(*key) {
                    Some(Value::Text(text)) => text.clone(),
                    _ => nil(),
                });
                array(all)
            }
            ["DEL", keys @ ..] => {
                keys.iter().filter(|key| self.0.remove(**key).is_some()).count().to_string()
            }
            ["EXISTS", keys @ ..] => keys.iter().filter(|key| self.0.contains_key(**key)).count().to_string(),
            ["RENAME", from, to] => {
                let value = self.0.remove(*from).ok_or("ERR")?;
                self.0.insert((*to).to_owned(), value);
                "OK".to_owned()
            }
            ["COPY", from, to, "REPLACE"] => match self.0.get(*from).cloned() {
                None => "0".to_owned(),
                Some(value) => {
                    self.0.insert((*to).to_owned(), value);
                    "1".to_owned()
                }
            },
            ["RPUSH", key, values @ ..] => {
                let list = self.list(key)?;
                list.extend(values.iter().map(|value| (*value).to_owned()));
                list.len().to_string()
            }
            ["LRANGE", key, "0", "-1"] => {
                let all = array(self.list(key)?.iter().cloned());
                self.drop_empty(key);
                all
            }
            ["LPOP", key] => self.pop_front(key)?.unwrap_or_else(nil),
            ["BLPOP", keys @ .., _] => {
                for key in keys {
                    if let Some(value) = self.pop_front(key)? {
                        return Ok(array([(*key).to_owned(), value]));
                    }
                }
                nil()
            }
            ["LMOVE", from, to, "RIGHT", "LEFT"] => {
                if !self.0.contains_key(*from) {
                    return Ok(nil());
                }
                self.list(from)?;
                self.list(to)?;
                let value = self.list(from)?.pop_back().expect("a list has elements");
                self.list(to)?.push_front(value.clone());
                self.drop_empty(from);
                value
            }
            ["SADD", key, member] => {
                let added = self.set(key)?.insert((*member).to_owned());
                u8::from(added).to_string()
            }
            ["SMOVE", from, to, member] => {
                if !self.0.contains_key(*from) {
                    return Ok("0".to_owned());
                }
                self.set(from)?;
                if let Some(Value::Text(_) | Value::List(_)) = self.0.get(*to) {
                    return Err(WRONG_TYPE);
                }
                let had = self.set(from)?.remove(*member);
                if had {
                    self.set(to)?.insert((*member).to_owned());
                }
                self.drop_empty(from);
                u8::from(had).to_string()
            }
            ["SMEMBERS", key] => array(self.members(key)?),
            ["SUNION", keys @ ..] => {
                let mut all = BTreeSet::new();
                for key in keys {
                    all.extend(self.members(key)?);
                }
                array(all)
            }
            ["SINTERSTORE", to, one, other] => {
                let (one, other) = (self.members(one)?, self.members(other)?);
                self.store(to, one.intersection(&other).cloned().collect())
            }
            ["SUNIONSTORE", to, one, other] => {
                let (one, other) = (self.members(one)?, self.members(other)?);
                self.store(to, one.union(&other).cloned().collect())
            }
            _ => panic!("no model of {words:?}"),
        })
    }

    fn text(&self, key: &str) -> Result<Option<&str>, &'static str> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(WRONG_TYPE),
        }
    }

    /// The list, made if it is missing.
    fn list(&mut self, key: &str) -> Result<&mut VecDeque<String>, &'static str> {
        match self.0.entry(key.to_owned()).or_insert_with(|| Value::List(VecDeque::new())) {
            Value::List(list) => Ok(list),
            _ => Err(WRONG_TYPE),
        }
    }

    /// The set, made if it is missing.
    fn set(&mut self, key: &str) -> Result<&mut BTreeSet<String>, &'static str> {
        match self.0.entry(key.to_owned()).or_insert_with(|| Value::Set(BTreeSet::new())) {
            Value::Set(set) => Ok(set),
            _ => Err(WRONG_TYPE),
        }
    }

    fn members(&self, key: &str) -> Result<BTreeSet<String>, &'static str> {
        match self.0.get(key) {
            None => Ok(BTreeSet::new()),
            Some(Value::Set(set)) => Ok(set.clone()),
            Some(_) => Err(WRONG_TYPE),
        }
    }

    fn store(&mut self, key: &str, set: BTreeSet<String>) -> String {
        let count = set.len();
        self.0.insert(key.to_owned(), Value::Set(set));
        self.drop_empty(key);
        count.to_string()
    }

    fn pop_front(&mut self, key: &str) -> Result<Option<String>, &'static str> {
        let value = self.list(key)?.pop_front();
        self.drop_empty(key);
        Ok(value)
    }

    fn drop_empty(&mut self, key: &str) {
        let empty = match self.0.get(key) {
            Some(Value::List(list)) => list.is_empty(),
            Some(Value::Set(set)) => set.is_empty(),
            _ => false,
        };
        if empty {
            self.0.remove(key);
        }
    }
}

fn nil() -> String {
    "nil".to_owned()
}

fn array(parts: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", parts.into_iter().collect::<Vec<String>>().join(" "))
}

/// Words of a step that are keys: by their form, which no value of a history has.
fn keys(step: &Step) -> BTreeSet<&str> {
    step.iter().flatten().map(String::as_str).filter(|word| word.contains(':')).collect()
}

/// Whether the operations, at most 64 that start from nothing, could have happened one after the other.
///
/// # Panics
///
/// If there are more.
pub fn is_linearisable(operations: &[Operation]) -> bool {
    assert!(operations.len() <= 64, "a set of operations is one number");
    // Which operations must be done before each.
    let mut before = vec![0u64; operations.len()];
    for (at, operation) in operations.iter().enumerate() {
        for (other_at, other) in operations.iter().enumerate() {
            let in_client_order = other.client == operation.client
                && other_at < at
                && (!operation.pipelined || !keys(&other.step).is_disjoint(&keys(&operation.step)));
            if other.ended < operation.began || in_client_order {
                before[at] |= 1 << other_at;
            }
        }
    }
    let all = if operations.len() == 64 { u64::MAX } else { (1 << operations.len()) - 1 };
    let mut seen: HashSet<(u64, Store)> = HashSet::new();
    let mut open = vec![(0u64, Store::default())];
    while let Some((done, store)) = open.pop() {
        if done == all {
            return true;
        }
        for (at, operation) in operations.iter().enumerate() {
            if done & (1 << at) != 0 || before[at] & !done != 0 {
                continue;
            }
            let mut after = store.clone();
            let fits = operation.replies.as_ref().is_none_or(|replies| {
                operation.step.iter().zip(replies).all(|(command, reply)| after.run(command) == *reply)
            });
            let next = (done | 1 << at, after);
            if fits && !seen.contains(&next) {
                seen.insert(next.clone());
                open.push(next);
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{Operation, Store, is_linearisable};

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    fn operation(client: usize, line: &str, reply: &str, began: u64, ended: u64) -> Operation {
        Operation {
            client,
            step: vec![words(line)],
            replies: Some(vec![reply.to_owned()]),
            began,
            ended,
            pipelined: false,
        }
    }

    #[test]
    fn a_late_read_of_an_old_value_is_found() {
        let write = operation(0, "SET k:1 a", "OK", 0, 1);
        assert!(is_linearisable(&[write.clone(), operation(1, "GET k:1", "a", 2, 3)]));
        assert!(!is_linearisable(&[write.clone(), operation(1, "GET k:1", "nil", 2, 3)]));
        // While the write is under way both are right.
        assert!(is_linearisable(&[write.clone(), operation(1, "GET k:1", "nil", 0, 3)]));
        assert!(is_linearisable(&[write, operation(1, "GET k:1", "a", 0, 3)]));
    }

    #[test]
    fn half_of_a_write_is_found() {
        let write = operation(0, "MSET k:1 a k:2 a", "OK", 0, 10);
        assert!(is_linearisable(&[write.clone(), operation(1, "MGET k:1 k:2", "[a a]", 0, 10)]));
        assert!(is_linearisable(&[write.clone(), operation(1, "MGET k:1 k:2", "[nil nil]", 0, 10)]));
        assert!(!is_linearisable(&[write, operation(1, "MGET k:1 k:2", "[a nil]", 0, 10)]));
    }

    #[test]
    fn two_who_see_two_writes_in_different_orders_are_found() {
        let mut history =
            vec![operation(0, "SET k:1 a", "OK", 0, 100), operation(1, "SET k:2 a", "OK", 0, 100)];
        history.push(operation(2, "GET k:1", "a", 1, 2));
        history.push(operation(2, "GET k:2", "nil", 3, 4));
        assert!(is_linearisable(&history));
        history.push(operation(3, "GET k:2", "a", 1, 2));
        history.push(operation(3, "GET k:1", "nil", 3, 4));
        assert!(!is_linearisable(&history));
    }

    #[test]
    fn a_pipeline_keeps_its_order_on_a_key() {
        let mut history = vec![operation(0, "SET k:1 a", "OK", 0, 10), operation(0, "GET k:1", "nil", 0, 10)];
        history[1].pipelined = true;
        assert!(!is_linearisable(&history));
        history[1].replies = Some(vec!["a".to_owned()]);
        assert!(is_linearisable(&history));
    }

    #[test]
    fn what_left_no_trace_fits_everywhere() {
        let mut nothing = operation(0, "SET k:1 b", "OK", 0, 10);
        nothing.replies = None;
        assert!(is_linearisable(&[nothing, operation(1, "GET k:1", "nil", 11, 12)]));
    }

    #[test]
    fn the_model_answers_as_redis_does() {
        let mut store = Store::default();
        for (line, reply) in [
            ("RPUSH l a b c", "3"),
            ("LMOVE l m RIGHT LEFT", "c"),
            ("GET l", "WRONGTYPE"),
            ("BLPOP none m 0.1", "[m c]"),
            ("EXISTS l m", "1"),
            ("LRANGE m 0 -1", "[]"),
            ("SADD s x", "1"),
            ("SMOVE s t x", "1"),
            ("EXISTS s t", "1"),
            ("SUNIONSTORE u s t", "1"),
            ("SINTERSTORE u s t", "0"),
            ("EXISTS u", "0"),
            ("RENAME u t", "ERR"),
            ("INCRBY n 5", "5"),
            ("MSETNX n 1 o 1", "0"),
            ("COPY n o REPLACE", "1"),
            ("MGET n o t u", "[5 5 nil nil]"),
        ] {
            assert_eq!(store.run(&words(line)), reply, "{line}");
        }
    }
}
