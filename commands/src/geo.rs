//! Positions: sorted sets whose scores are cells of the earth's surface.
//!
//! A search takes the ranges of scores near its centre from [`damselfly_sketches::geo`], measures every member in
//! them, and sorts if asked to. GEORADIUS and its kin are the same search in older words, so the words are parsed
//! into one [`Query`].

mod steps;

use std::cmp::Ordering;
use std::ops::Range;

use damselfly_keyspace::Collection;
use damselfly_keyspace::values::zset::{Bound, SortedSet};
use damselfly_protocol::number::parse_f64;
use damselfly_protocol::{Argv, Proto, ReplyWriter};
use damselfly_sketches::geo::{Point, Search, Shape, unit_in_metres, write_coordinate, write_distance};

use crate::many::answer;
use crate::task::Rest;
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

pub(crate) const COMMANDS: &[&Command] = &[
    &GEOADD,
    &GEODIST,
    &GEOHASH,
    &GEOPOS,
    &GEORADIUS,
    &GEORADIUSBYMEMBER,
    &GEORADIUSBYMEMBER_RO,
    &GEORADIUS_RO,
    &GEOSEARCH,
    &GEOSEARCHSTORE,
];

const UNIT: CommandError = CommandError::text("ERR unsupported unit provided. please use M, KM, FT, MI");
const NO_MEMBER: CommandError = CommandError::text("ERR could not decode requested zset member");

/// Longitude and latitude.
fn take_point(args: &mut Args<'_>) -> Result<Point, CommandError> {
    let mut degrees = || args.take().and_then(|text| parse_f64(text).ok_or(CommandError::NotFloat));
    let (lon, lat) = (degrees()?, degrees()?);
    Point::new(lon, lat)
        .ok_or_else(|| CommandError::owned(format!("ERR invalid longitude,latitude pair {lon:.6},{lat:.6}")))
}

/// The metres of a unit.
fn take_unit(args: &mut Args<'_>) -> Result<f64, CommandError> {
    unit_in_metres(args.take()?).ok_or(UNIT)
}

/// A radius and its unit.
fn take_circle(args: &mut Args<'_>) -> Result<(Shape, f64), CommandError> {
    const RADIUS: CommandError = CommandError::text("ERR need numeric radius");
    const NEGATIVE: CommandError = CommandError::text("ERR radius cannot be negative");
    let radius = parse_f64(args.take()?).ok_or(RADIUS)?;
    if radius < 0.0 {
        return Err(NEGATIVE);
    }
    Ok((Shape::Circle { radius }, take_unit(args)?))
}

/// A width, a height and their unit.
fn take_rectangle(args: &mut Args<'_>) -> Result<(Shape, f64), CommandError> {
    const WIDTH: CommandError = CommandError::text("ERR need numeric width");
    const HEIGHT: CommandError = CommandError::text("ERR need numeric height");
    const NEGATIVE: CommandError = CommandError::text("ERR height or width cannot be negative");
    let width = parse_f64(args.take()?).ok_or(WIDTH)?;
    let height = parse_f64(args.take()?).ok_or(HEIGHT)?;
    if width < 0.0 || height < 0.0 {
        return Err(NEGATIVE);
    }
    Ok((Shape::Rectangle { width, height }, take_unit(args)?))
}

fn point_of(set: &SortedSet, member: &[u8]) -> Option<Point> {
    set.score(member).map(Point::from_score)
}

/// A number with its digits as they are: a double, which in RESP2 is a string.
fn reply_digits(out: &mut ReplyWriter<'_>, digits: &[u8]) {
    match out.proto() {
        Proto::Resp2 => out.bulk(digits),
        Proto::Resp3 => {
            out.raw(b",");
            out.raw(digits);
            out.raw(b"\r\n");
        }
    }
}

fn reply_point(out: &mut ReplyWriter<'_>, point: Point) {
    out.array(2);
    let mut digits = Vec::with_capacity(24);
    for degrees in [point.lon, point.lat] {
        digits.clear();
        write_coordinate(degrees, &mut digits);
        reply_digits(out, &digits);
    }
}

/// A distance is a string in both protocols.
fn reply_distance(out: &mut ReplyWriter<'_>, distance: f64) {
    let mut digits = Vec::with_capacity(16);
    write_distance(distance, &mut digits);
    out.bulk(&digits);
}

const GEOADD: Command = Command {
    name: "GEOADD",
    arity: Arity::AtLeast(5),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS),
    spread: Spread::Single,
    group: Group::Geo,
    since: "3.2.0",
    syntax: "key [NX | XX] [CH] longitude latitude member [longitude latitude member ...]",
    summary: "Adds members with their positions, or gives them new ones.",
    run: Run::Shard(geoadd),
};

fn geoadd(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    let (mut only_new, mut only_known, mut count_changes) = (false, false, false);
    loop {
        if args.take_word("NX") {
            only_new = true;
        } else if args.take_word("XX") {
            only_known = true;
        } else if args.take_word("CH") {
            count_changes = true;
        } else {
            break;
        }
    }
    if args.is_empty() || !args.len().is_multiple_of(3) || only_new && only_known {
        return Err(CommandError::Syntax);
    }
    let members = args;
    let mut take_score = || -> Result<f64, CommandError> {
        let score = take_point(&mut args)?.score();
        args.take()?;
        Ok(score)
    };
    let first = take_score()?;
    let more = (1..members.len() / 3).map(|_| take_score()).collect::<Result<Vec<f64>, _>>()?;
    let rule = crate::zset::Rule { only_new, only_known, count_changes, ..Default::default() };
    crate::zset::add_scored(cx, key, rule, members, 3, (first, more))
}

const GEODIST: Command = Command {
    name: "GEODIST",
    arity: Arity::AtLeast(4),
    keys: Keys::First,
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::Geo,
    since: "3.2.0",
    syntax: "key member1 member2 [M | KM | FT | MI]",
    summary: "Returns the distance between two members.",
    run: Run::Shard(geodist),
};

fn geodist(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, one, other) = (args.take()?, args.take()?, args.take()?);
    let unit = match args.len() {
        0 => 1.0,
        1 => take_unit(&mut args)?,
        _ => return Err(CommandError::Syntax),
    };
    let set = cx.ks.view::<SortedSet>(cx.db, key)?;
    match set.and_then(|set| Some((point_of(set, one)?, point_of(set, other)?))) {
        Some((one, other)) => reply_distance(&mut cx.out, one.distance(other) / unit),
        None => cx.out.null(),
    }
    Ok(())
}

const GEOHASH: Command = Command {
    name: "GEOHASH",
    arity: Arity::AtLeast(2),
    keys: Keys::First,
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::Geo,
    since: "3.2.0",
    syntax: "key [member [member ...]]",
    summary: "Returns the positions of members as geohashes.",
    run: Run::Shard(geohash),
};

fn geohash(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    answer(cx, key, args, SortedSet::len, |set, member, out| {
        match set.and_then(|set| point_of(set, member)) {
            Some(point) => out.bulk(&point.geohash()),
            None => out.null(),
        }
    })
}

const GEOPOS: Command = Command {
    name: "GEOPOS",
    arity: Arity::AtLeast(2),
    keys: Keys::First,
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::Geo,
    since: "3.2.0",
    syntax: "key [member [member ...]]",
    summary: "Returns the positions of members.",
    run: Run::Shard(geopos),
};

fn geopos(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    answer(cx, key, args, SortedSet::len, |set, member, out| {
        match set.and_then(|set| point_of(set, member)) {
            Some(point) => reply_point(out, point),
            None => out.null_array(),
        }
    })
}

const GEOSEARCH: Command = Command {
    name: "GEOSEARCH",
    arity: Arity::AtLeast(7),
    keys: Keys::First,
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::Geo,
    since: "6.2.0",
    syntax: "key <FROMMEMBER member | FROMLONLAT longitude latitude> \
             <BYRADIUS radius <M | KM | FT | MI> | BYBOX width height <M | KM | FT | MI>> [ASC | DESC] \
             [COUNT count [ANY]] [WITHCOORD] [WITHDIST] [WITHHASH]",
    summary: "Returns the members inside a circle or a rectangle.",
    run: Run::Shard(geosearch),
};

fn geosearch(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    search(cx, key, None, args, Words::Search)
}

const GEOSEARCHSTORE: Command = Command {
    name: "GEOSEARCHSTORE",
    arity: Arity::AtLeast(8),
    keys: Keys::Range { first: 1, last: 2, step: 1 },
    flags: Flags::WRITE.with(Flags::GROWS),
    spread: Spread::Together,
    group: Group::Geo,
    since: "6.2.0",
    syntax: "destination source <FROMMEMBER member | FROMLONLAT longitude latitude> \
             <BYRADIUS radius <M | KM | FT | MI> | BYBOX width height <M | KM | FT | MI>> [ASC | DESC] \
             [COUNT count [ANY]] [STOREDIST]",
    summary: "Stores the members inside a circle or a rectangle.",
    run: Run::Shard(geosearchstore),
};

fn geosearchstore(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (store, key) = (args.take()?, args.take()?);
    search(cx, key, Some(store), args, Words::SearchStore)
}

const GEORADIUS: Command = Command {
    name: "GEORADIUS",
    arity: Arity::AtLeast(6),
    keys: Keys::FirstAnd(stored_keys),
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::MOVABLE_KEYS),
    spread: Spread::Together,
    group: Group::Geo,
    since: "3.2.0",
    syntax: "key longitude latitude radius <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] \
             [ASC | DESC] [STORE key | STOREDIST key]",
    summary: "Returns or stores the members around a position.",
    run: Run::Shard(georadius),
};

/// Where STORE and STOREDIST name a key: the last one counts.
fn stored_keys(argv: &Argv<'_>, positions: &mut Vec<usize>) {
    const OPTIONS_FROM: usize = 5;
    let is_store = |at: &usize| {
        let word = &argv[*at - 1];
        word.eq_ignore_ascii_case(b"STORE") || word.eq_ignore_ascii_case(b"STOREDIST")
    };
    positions.extend((OPTIONS_FROM + 1..argv.len()).rev().find(is_store));
}

fn georadius(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    search(cx, key, None, args, Words::Radius { stores: true })
}

const GEORADIUS_RO: Command = Command {
    name: "GEORADIUS_RO",
    arity: Arity::AtLeast(6),
    keys: Keys::First,
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::Geo,
    since: "3.2.10",
    syntax: "key longitude latitude radius <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] \
             [ASC | DESC]",
    summary: "Returns the members around a position.",
    run: Run::Shard(georadius_ro),
};

fn georadius_ro(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    search(cx, key, None, args, Words::Radius { stores: false })
}

const GEORADIUSBYMEMBER: Command = Command {
    name: "GEORADIUSBYMEMBER",
    arity: Arity::AtLeast(5),
    keys: Keys::FirstAnd(stored_keys),
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::MOVABLE_KEYS),
    spread: Spread::Together,
    group: Group::Geo,
    since: "3.2.0",
    syntax: "key member radius <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] [ASC | DESC] \
             [STORE key | STOREDIST key]",
    summary: "Returns or stores the members around a member.",
    run: Run::Shard(georadiusbymember),
};

fn georadiusbymember(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    search(cx, key, None, args, Words::RadiusByMember { stores: true })
}

const GEORADIUSBYMEMBER_RO: Command = Command {
    name: "GEORADIUSBYMEMBER_RO",
    arity: Arity::AtLeast(5),
    keys: Keys::First,
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::Geo,
    since: "3.2.10",
    syntax: "key member radius <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] [ASC | DESC]",
    summary: "Returns the members around a member.",
    run: Run::Shard(georadiusbymember_ro),
};

fn georadiusbymember_ro(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    search(cx, key, None, args, Words::RadiusByMember { stores: false })
}

/// Which words a command has for its search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Words {
    Search,
    SearchStore,
    Radius { stores: bool },
    RadiusByMember { stores: bool },
}

impl Words {
    fn is_search(self) -> bool {
        matches!(self, Words::Search | Words::SearchStore)
    }

    /// Whether STORE and STOREDIST name a key.
    fn has_store(self) -> bool {
        matches!(self, Words::Radius { stores: true } | Words::RadiusByMember { stores: true })
    }
}

/// What is asked for.
#[derive(Default)]
struct Query {
    /// None if it is a member's and there are no members.
    centre: Option<Point>,
    shape: Option<(Shape, f64)>,
    order: Option<Order>,
    /// 0 is all.
    count: usize,
    any: bool,
    with_distance: bool,
    with_hash: bool,
    with_point: bool,
    /// Where the result goes, if it is not the reply.
    store: Option<Box<[u8]>>,
    store_distance: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Nearest,
    Farthest,
}

impl Order {
    fn compare(self, one: f64, other: f64) -> Ordering {
        match self {
            Order::Nearest => one.total_cmp(&other),
            Order::Farthest => other.total_cmp(&one),
        }
    }
}

impl Query {
    /// Takes all words of a command behind its key. `set` is what the key holds, to find members in.
    fn parse(mut args: Args<'_>, words: Words, set: Option<&SortedSet>) -> Result<Query, CommandError> {
        const COUNT: CommandError = CommandError::text("ERR COUNT must be > 0");
        const ANY: CommandError = CommandError::text("ERR the ANY argument requires COUNT argument");
        let mut query = Query::default();
        let place = |member| match set {
            Some(set) => point_of(set, member).ok_or(NO_MEMBER).map(Some),
            None => Ok(None),
        };
        let (mut from, mut by) = (None, None);
        match words {
            Words::Radius { .. } => {
                query.centre = Some(take_point(&mut args)?);
                query.shape = Some(take_circle(&mut args)?);
            }
            Words::RadiusByMember { .. } => {
                let member = args.take()?;
                if set.is_some() {
                    query.centre = place(member)?;
                    query.shape = Some(take_circle(&mut args)?);
                } else {
                    // Without members there is nothing to be near to, and Redis does not look at the radius.
                    args.take()?;
                    args.take()?;
                }
            }
            Words::Search | Words::SearchStore => {}
        }
        while !args.is_empty() {
            let more = args.len() - 1;
            if args.take_word("WITHDIST") {
                query.with_distance = true;
            } else if args.take_word("WITHHASH") {
                query.with_hash = true;
            } else if args.take_word("WITHCOORD") {
                query.with_point = true;
            } else if args.take_word("ANY") {
                query.any = true;
            } else if args.take_word("ASC") {
                query.order = Some(Order::Nearest);
            } else if args.take_word("DESC") {
                query.order = Some(Order::Farthest);
            } else if more > 0 && args.take_word("COUNT") {
                let count = args.take_int()?;
                query.count = usize::try_from(count).ok().filter(|&count| count > 0).ok_or(COUNT)?;
            } else if words.has_store() && more > 0 && args.take_word("STORE") {
                (query.store, query.store_distance) = (Some(args.take()?.into()), false);
            } else if words.has_store() && more > 0 && args.take_word("STOREDIST") {
                (query.store, query.store_distance) = (Some(args.take()?.into()), true);
            } else if words == Words::SearchStore && args.take_word("STOREDIST") {
                query.store_distance = true;
            } else if words.is_search()
                && more > 0
                && from != Some(From::Point)
                && args.take_word("FROMMEMBER")
            {
                from = Some(From::Member);
                query.centre = place(args.take()?)?;
            } else if words.is_search()
                && more > 1
                && from != Some(From::Member)
                && args.take_word("FROMLONLAT")
            {
                from = Some(From::Point);
                query.centre = Some(take_point(&mut args)?);
            } else if words.is_search() && more > 1 && by != Some(By::Box) && args.take_word("BYRADIUS") {
                by = Some(By::Radius);
                query.shape = Some(take_circle(&mut args)?);
            } else if words.is_search() && more > 2 && by != Some(By::Radius) && args.take_word("BYBOX") {
                by = Some(By::Box);
                query.shape = Some(take_rectangle(&mut args)?);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        let stores = query.store.is_some() || words == Words::SearchStore;
        if stores && (query.with_distance || query.with_hash || query.with_point) {
            let what = if words.is_search() { "GEOSEARCHSTORE" } else { "STORE option in GEORADIUS" };
            return Err(CommandError::owned(format!(
                "ERR {what} is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
            )));
        }
        if words.is_search() {
            let name = if words == Words::Search { "GEOSEARCH" } else { "GEOSEARCHSTORE" };
            for (given, options) in
                [(from.is_some(), "FROMMEMBER or FROMLONLAT"), (by.is_some(), "BYRADIUS and BYBOX")]
            {
                if !given {
                    return Err(CommandError::owned(format!(
                        "ERR exactly one of {options} can be specified for {name}"
                    )));
                }
            }
        }
        if query.any && query.count == 0 {
            return Err(ANY);
        }
        // The nearest ones are meant, unless any will do.
        if query.count > 0 && query.order.is_none() && !query.any {
            query.order = Some(Order::Nearest);
        }
        Ok(query)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Member,
    Point,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Radius,
    Box,
}

/// A member that was found.
#[derive(Clone, Copy)]
struct Hit<M> {
    member: M,
    score: f64,
    /// In metres.
    distance: f64,
}

/// The ranks of members that may be in the area, range by range.
fn ranks(set: &SortedSet, search: Search) -> impl Iterator<Item = Range<usize>> {
    search.ranges().map(|(from, to)| set.ranks_by_score(Bound::Included(from), Bound::Excluded(to)))
}

/// Visits those of the members with these ranks that are in the area.
fn visit_hits(
    set: &SortedSet,
    search: Search,
    ranks: Range<usize>,
    mut visit: impl for<'a> FnMut(Hit<&'a [u8]>),
) {
    set.visit(ranks, false, |member, score| {
        if let Some(distance) = search.distance_to(Point::from_score(score)) {
            visit(Hit { member, score, distance });
        }
    });
}

/// The members in the area, in the order of the ranges; `enough` of them if not 0.
fn hits(set: &SortedSet, search: Search, enough: usize) -> Vec<Hit<Box<[u8]>>> {
    /// Members looked at before asking whether there are enough.
    const STEP: usize = 64;
    let enough = if enough == 0 { usize::MAX } else { enough };
    let mut hits = Vec::new();
    for ranks in ranks(set, search) {
        for start in ranks.clone().step_by(STEP) {
            visit_hits(set, search, start..(start + STEP).min(ranks.end), |hit| {
                if hits.len() < enough {
                    hits.push(Hit { member: hit.member.into(), score: hit.score, distance: hit.distance });
                }
            });
            if hits.len() >= enough {
                return hits;
            }
        }
    }
    hits
}

fn search(cx: &mut Cx<'_>, key: &[u8], store: Option<&[u8]>, args: Args<'_>, words: Words) -> CmdResult {
    let (seed, limits) = (cx.ks.hash_seed(), cx.env.zset_pack);
    let set = cx.ks.view::<SortedSet>(cx.db, key)?;
    let mut query = Query::parse(args, words, set)?;
    if let Some(store) = store {
        query.store = Some(store.into());
    }
    let event = if words.is_search() { "geosearchstore" } else { "georadiusstore" };
    let mut found = Vec::new();
    if let (Some(set), Some(area)) = (set, query.area()) {
        let looked_at: usize = ranks(set, area).map(|ranks| ranks.len()).sum();
        if looked_at > cx.env.at_once_max
            && let Some(place) = &mut cx.later
        {
            let searching = steps::Searching::new(set, area, query, event, cx.out.proto(), (seed, limits));
            **place = Some(Rest::Task(Box::new(searching)));
            return Ok(());
        }
        found = hits(set, area, query.enough());
    }
    if let Some(order) = query.order {
        // Of those equally far, those found first come first.
        found.sort_by(|one, other| order.compare(one.distance, other.distance));
    }
    if query.count > 0 {
        found.truncate(query.count);
    }
    let Some(store) = &query.store else {
        cx.out.array(found.len());
        found.iter().for_each(|hit| query.reply(&mut cx.out, hit.borrow()));
        return Ok(());
    };
    let mut set = SortedSet::begin(seed);
    for hit in &found {
        set.insert(seed, &hit.member, query.stored_score(hit.borrow()), limits);
    }
    crate::zset::store(cx, store, set, event);
    Ok(())
}

impl Hit<Box<[u8]>> {
    fn borrow(&self) -> Hit<&[u8]> {
        Hit { member: &self.member, score: self.score, distance: self.distance }
    }
}

impl Query {
    /// Where to search; None if nothing can be there.
    fn area(&self) -> Option<Search> {
        let (centre, (shape, unit)) = (self.centre?, self.shape?);
        Some(Search { centre, shape, unit })
    }

    fn unit(&self) -> f64 {
        self.shape.map_or(1.0, |(_, unit)| unit)
    }

    /// How many hits end the search, in whatever order they are found; 0 if all are to be found.
    fn enough(&self) -> usize {
        if self.any { self.count } else { 0 }
    }

    /// Writes an element of the reply.
    fn reply(&self, out: &mut ReplyWriter<'_>, hit: Hit<&[u8]>) {
        let options = [self.with_distance, self.with_hash, self.with_point];
        let nested = options.into_iter().filter(|&set| set).count();
        if nested > 0 {
            out.array(nested + 1);
        }
        out.bulk(hit.member);
        if self.with_distance {
            reply_distance(out, hit.distance / self.unit());
        }
        if self.with_hash {
            out.int(hit.score as i64);
        }
        if self.with_point {
            reply_point(out, Point::from_score(hit.score));
        }
    }

    /// The score that a hit has where it is stored: its position or its distance.
    fn stored_score(&self, hit: Hit<&[u8]>) -> f64 {
        if self.store_distance { hit.distance / self.unit() } else { hit.score }
    }
}
