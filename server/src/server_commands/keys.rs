//! Commands over all keys of a database: DBSIZE, FLUSHALL, FLUSHDB, KEYS, RANDOMKEY, RM, SCAN, SWAPDB.

use std::collections::BTreeMap;

use damselfly_commands::{AT_ONCE_MAX, Args, CommandError, parse_cursor};
use damselfly_config::glob::Pattern;
use damselfly_keyspace::Cursor;
use damselfly_protocol::number::parse_i64;

use super::{Outcome, client_of, reply, wait};
use crate::connection::ConnectionId;
use crate::core::Core;
use crate::locks::Scope;
use crate::tracking::{Flush, Reader};

/// DBSIZE
pub fn dbsize(core: &mut Core, id: ConnectionId) -> Outcome {
    let db = usize::from(client_of(core, id)?.db);
    if core.shared.peers.len() == 1 {
        let keys = core.ks.len(db);
        return reply(core, id, |out| out.int(keys as i64));
    }
    core.ask_all(
        move |core| core.ks.len(db),
        move |core, sizes| core.answer_with(id, |out| out.int(sizes.iter().sum::<usize>() as i64)),
    );
    wait(core, id)
}

/// FLUSHALL and FLUSHDB [ASYNC | SYNC]. Both return at once: memory is always freed in steps.
pub fn flush(core: &mut Core, id: ConnectionId, mut args: Args<'_>, all: bool) -> Outcome {
    if args.len() > 1 || (!args.is_empty() && !args.take_word("ASYNC") && !args.take_word("SYNC")) {
        return Err(CommandError::Syntax);
    }
    let db = usize::from(client_of(core, id)?.db);
    let flush = Flush::new(Reader { core: core.id, id }, core.shared.peers.len());
    let work = move |core: &mut Core| {
        let dbs = if all { 0..core.ks.databases() } else { db..db + 1 };
        for db in dbs {
            core.flush(db);
        }
        core.forget_readers(&flush);
    };
    on_all_shards(core, id, work, move |core| core.push_flushed_to(id))
}

/// SWAPDB index1 index2
pub fn swap_db(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    let databases = core.ks.databases();
    let mut index = |what: &str| {
        let arg = args.take()?;
        // To Redis these are numbers of 32 bits.
        let index = parse_i64(arg).and_then(|index| i32::try_from(index).ok());
        index.ok_or_else(|| CommandError::owned(format!("ERR invalid {what} DB index")))
    };
    let (one, other) = (index("first")?, index("second")?);
    let database = |index| {
        let index = usize::try_from(index).ok().filter(|index| *index < databases);
        index.ok_or(CommandError::DbIndexOutOfRange)
    };
    let (one, other) = (database(one)?, database(other)?);
    if one == other {
        // Nobody who watches a key there is to think that it was changed.
        return reply(core, id, |out| out.ok());
    }
    on_all_shards(core, id, move |core| core.swap(one, other), |_| ())
}

/// Does something on every shard as one operation, answers OK, and then goes on.
fn on_all_shards(
    core: &mut Core,
    id: ConnectionId,
    work: impl FnOnce(&mut Core) + Clone + Send + 'static,
    then: impl FnOnce(&mut Core) + 'static,
) -> Outcome {
    if core.shared.peers.len() == 1 && core.locks.is_idle() {
        work(core);
        core.after_command();
        let outcome = reply(core, id, |out| out.ok());
        then(core);
        return outcome;
    }
    let scopes: BTreeMap<usize, Scope> =
        (0..core.shared.peers.len()).map(|core| (core, Scope::Shard)).collect();
    core.lock_for(id, scopes, move |core, held| {
        let work = move |core: &mut Core| {
            work(core);
            core.after_command();
        };
        core.ask_all(work, move |core, _| {
            core.unlock_all_then(held, move |core| {
                core.answer_with(id, |out| out.ok());
                then(core);
            });
        });
    });
    wait(core, id)
}

/// KEYS pattern
pub fn keys(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    let pattern = Pattern::new(args.take()?);
    let db = usize::from(client_of(core, id)?.db);
    let limit = match core.shared.config.keys_output_limit {
        0 => usize::MAX,
        limit => limit as usize,
    };
    core.ask_all(
        move |core| {
            let mut found = Vec::new();
            if let Some(table) = core.ks.db(db) {
                let now = core.ks.now;
                table.for_each(|loc| {
                    let key = table.key(loc);
                    if found.len() < limit
                        && pattern.matches(key)
                        && table.expire_at(loc).is_none_or(|at| at > now)
                    {
                        found.push(key.to_vec());
                    }
                });
            }
            found
        },
        move |core, found| {
            let total: usize = found.iter().map(Vec::len).sum();
            core.answer_with(id, |out| {
                out.array(total.min(limit));
                for key in found.iter().flatten().take(limit) {
                    out.bulk(key);
                }
            });
        },
    );
    wait(core, id)
}

/// RANDOMKEY
pub fn random_key(core: &mut Core, id: ConnectionId) -> Outcome {
    let db = usize::from(client_of(core, id)?.db);
    core.ask_all(
        move |core| {
            let size = core.ks.len(db);
            let picked = core.ks.random_key(db).map(|loc| core.ks.table(db).key(loc).to_vec());
            core.after_command();
            picked.map(|key| (size, key))
        },
        move |core, picked| {
            // A shard is chosen by its share of the keys, so that every key has the same chance.
            let picked: Vec<(usize, Vec<u8>)> = picked.into_iter().flatten().collect();
            let total: usize = picked.iter().map(|(size, _)| size).sum();
            let mut at = if total == 0 { 0 } else { (core.ks.random() % total as u64) as usize };
            let mut chosen = None;
            for (size, key) in picked {
                if at < size {
                    chosen = Some(key);
                    break;
                }
                at -= size;
            }
            core.answer_with(id, |out| match chosen {
                Some(key) => out.bulk(&key),
                None => out.null(),
            });
        },
    );
    wait(core, id)
}

/// What a SCAN asks for.
#[derive(Clone)]
struct Walk {
    pattern: Option<Pattern>,
    kind: Option<Vec<u8>>,
    count: usize,
    db: usize,
}

/// Shards are walked one after the other; the shard's number is the lowest ten bits of the cursor.
const SHARD_BITS: u32 = 10;

/// Buckets looked at in one SCAN beyond `COUNT`, so that a sparse table or a rare pattern does not hold the shard.
const BUCKETS_PER_COUNT: usize = 16;

/// Most keys that one SCAN looks at, whatever its `COUNT`: who walks goes on until the cursor is 0 anyway.
const SCAN_COUNT_MAX: usize = AT_ONCE_MAX;

/// SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]
pub fn scan(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    let cursor = parse_cursor(args.take()?)?;
    let db = usize::from(client_of(core, id)?.db);
    let mut walk = Walk { pattern: None, kind: None, count: 10, db };
    while !args.is_empty() {
        if args.len() < 2 {
            return Err(CommandError::Syntax);
        }
        if args.take_word("MATCH") {
            walk.pattern = Some(Pattern::new(args.take()?)).filter(|pattern| !pattern.matches_everything());
        } else if args.take_word("COUNT") {
            let count = args.take_int()?;
            if count < 1 {
                return Err(CommandError::Syntax);
            }
            walk.count = usize::try_from(count).unwrap_or(usize::MAX).min(SCAN_COUNT_MAX);
        } else if args.take_word("TYPE") {
            walk.kind = Some(args.take()?.to_vec());
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let shard = (cursor & ((1 << SHARD_BITS) - 1)) as usize;
    if shard >= core.shared.peers.len() {
        // A cursor that nobody was given: the walk is over, as Redis treats them.
        return reply(core, id, |out| {
            out.array(2);
            out.bulk(b"0");
            out.array(0);
        });
    }
    scan_from(core, id, shard, Cursor(cursor >> SHARD_BITS), walk, Vec::new());
    wait(core, id)
}

/// Walks on from a place, shard after shard, until enough keys were seen: a small database is one call, as in Redis.
fn scan_from(
    core: &mut Core,
    id: ConnectionId,
    shard: usize,
    cursor: Cursor,
    walk: Walk,
    mut found: Vec<Vec<u8>>,
) {
    let here = walk.clone();
    core.ask(
        shard,
        move |core| scan_shard(core, cursor, &here),
        move |core, (next, visited, more)| {
            found.extend(more);
            let next_shard = shard + 1;
            if next == Cursor(0) && next_shard < core.shared.peers.len() && visited < walk.count {
                let count = walk.count - visited;
                return scan_from(core, id, next_shard, Cursor(0), Walk { count, ..walk }, found);
            }
            let next = match next {
                Cursor(0) if next_shard < core.shared.peers.len() => next_shard as u64,
                Cursor(0) => 0,
                Cursor(position) => position << SHARD_BITS | shard as u64,
            };
            core.answer_with(id, |out| {
                out.array(2);
                out.bulk_int(next as i64);
                out.array(found.len());
                for key in &found {
                    out.bulk(key);
                }
            });
        },
    );
}

/// The cursor to go on with, how many keys were seen, and those that are wanted.
fn scan_shard(core: &mut Core, mut cursor: Cursor, walk: &Walk) -> (Cursor, usize, Vec<Vec<u8>>) {
    let (mut found, mut expired) = (Vec::new(), Vec::new());
    let now = core.ks.now;
    let Some(table) = core.ks.db(walk.db) else { return (Cursor(0), 0, found) };
    let mut visited = 0;
    for _ in 0..walk.count.saturating_mul(BUCKETS_PER_COUNT).min(1 << 24) {
        cursor = table.scan(cursor, |loc| {
            visited += 1;
            let key = table.key(loc);
            if table.expire_at(loc).is_some_and(|at| at <= now) {
                return expired.push(key.to_vec());
            }
            let wanted = walk.pattern.as_ref().is_none_or(|pattern| pattern.matches(key))
                && walk
                    .kind
                    .as_ref()
                    .is_none_or(|kind| table.type_at(loc).name().as_bytes().eq_ignore_ascii_case(kind));
            if wanted {
                found.push(key.to_vec());
            }
        });
        if cursor == Cursor(0) || visited >= walk.count {
            break;
        }
    }
    // Who walks meets expired keys that nobody else does. But for a script that has the shard it is another time, and
    // while clients are paused nothing changes.
    if core.pause.is_none() && !core.locks.is_shard_locked() {
        for key in expired {
            core.ks.find(walk.db, &key);
        }
        core.after_command();
    }
    (cursor, visited, found)
}

/// RM pattern: removes all keys that match and tells how many.
pub fn rm(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    let pattern = Pattern::new(args.take()?);
    args.end()?;
    let db = usize::from(client_of(core, id)?.db);
    core.ask_all(
        move |core| {
            let mut doomed = Vec::new();
            if let Some(table) = core.ks.db(db) {
                table.for_each(|loc| {
                    let key = table.key(loc);
                    if pattern.matches(key) {
                        doomed.push(key.to_vec());
                    }
                });
            }
            let mut removed = 0;
            for key in doomed {
                if core.ks.remove(db, &key) {
                    core.ks.changed(db, &key, damselfly_keyspace::Class::Generic, "del");
                    removed += 1;
                }
            }
            core.after_command();
            removed
        },
        move |core, removed| core.answer_with(id, |out| out.int(removed.iter().sum())),
    );
    wait(core, id)
}
