//! Sub-commands: what COMMAND tells about them, and the name that CLIENT LIST shows for them.
//!
//! They are dispatched by the handlers of their containers; this table describes those handlers to clients.

use damselfly_commands::{Command, Flags, Found};
use damselfly_protocol::Argv;

/// A sub-command of a container command.
#[derive(Debug)]
pub struct Subcommand {
    /// The container's name in upper case.
    pub container: &'static str,
    /// Its own name in upper case.
    pub name: &'static str,
    /// Number of arguments, both names included; negative for "at least".
    pub arity: i64,
    /// Properties.
    pub flags: Flags,
    /// One sentence.
    pub summary: &'static str,
}

impl Subcommand {
    /// `container|name` in lower case.
    pub fn full_name(&self) -> String {
        format!("{}|{}", self.container, self.name).to_ascii_lowercase()
    }

    /// Whether a request may have this many arguments, both names included.
    pub fn allows(&self, len: usize) -> bool {
        let wanted = self.arity.unsigned_abs() as usize;
        if self.arity < 0 { len >= wanted } else { len == wanted }
    }

    /// The number of its counters.
    pub fn counter(&'static self) -> usize {
        let before = all().position(|other| std::ptr::eq(other, self)).expect("all are listed");
        damselfly_commands::all().count() + before
    }

    /// Whether the argument behind the name is a key.
    pub fn has_key(&self) -> bool {
        matches!(self.container, "OBJECT" | "XGROUP" | "XINFO" | "MEMORY")
            && (self.flags.has(Flags::READ) || self.flags.has(Flags::WRITE))
    }
}

/// The sub-commands of a command; none if it is not a container.
pub fn of(command: &Command) -> &'static [Subcommand] {
    match command.name {
        "CLIENT" => CLIENT,
        "COMMAND" => COMMAND,
        "CONFIG" => CONFIG,
        "FUNCTION" => FUNCTION,
        "LATENCY" => LATENCY,
        "MEMORY" => MEMORY,
        "MODULE" => MODULE,
        "OBJECT" => OBJECT,
        "PUBSUB" => PUBSUB,
        "SCRIPT" => SCRIPT,
        "SLOWLOG" => SLOWLOG,
        "XGROUP" => XGROUP,
        "XINFO" => XINFO,
        _ => &[],
    }
}

/// All of them. The order is that of their counters, which follow those of the commands.
pub fn all() -> impl Iterator<Item = &'static Subcommand> {
    let containers = [
        CLIENT, COMMAND, CONFIG, FUNCTION, LATENCY, MEMORY, MODULE, OBJECT, PUBSUB, SCRIPT, SLOWLOG, XGROUP,
        XINFO,
    ];
    containers.into_iter().flatten()
}

/// The number of the counters of a request: those of its sub-command if it names one.
pub fn counter(found: Found, argv: &Argv<'_>) -> usize {
    match argv.get(1).and_then(|name| find(found.command, name)) {
        Some(subcommand) => subcommand.counter(),
        None => found.index,
    }
}

/// The sub-command that a request's second argument names.
#[inline]
pub fn find(command: &Command, name: &[u8]) -> Option<&'static Subcommand> {
    of(command).iter().find(|subcommand| subcommand.name.as_bytes().eq_ignore_ascii_case(name))
}

const ANY_TIME: Flags = Flags::LOADING.with(Flags::STALE);
const OWN: Flags = ANY_TIME.with(Flags::NO_SCRIPT);
const ADMIN: Flags = OWN.with(Flags::ADMIN);

const fn sub(
    container: &'static str,
    name: &'static str,
    arity: i64,
    flags: Flags,
    summary: &'static str,
) -> Subcommand {
    Subcommand { container, name, arity, flags, summary }
}

const fn help(container: &'static str) -> Subcommand {
    sub(container, "HELP", 2, ANY_TIME, "Describes the sub-commands.")
}

static CLIENT: &[Subcommand] = &[
    sub("CLIENT", "CACHING", 3, OWN, "Tells whether the next command's keys are cached."),
    sub("CLIENT", "GETNAME", 2, OWN, "Returns the name of the connection."),
    sub("CLIENT", "GETREDIR", 2, OWN, "Returns which client gets the invalidations."),
    help("CLIENT"),
    sub("CLIENT", "ID", 2, OWN, "Returns the number of the connection."),
    sub("CLIENT", "INFO", 2, OWN, "Describes the connection."),
    sub("CLIENT", "KILL", -3, ADMIN, "Closes connections."),
    sub("CLIENT", "LIST", -2, ADMIN, "Describes connections."),
    sub("CLIENT", "NO-EVICT", 3, ADMIN, "Spares the connection when memory for connections runs out."),
    sub("CLIENT", "NO-TOUCH", 3, OWN, "Lets commands of the connection leave access times as they are."),
    sub("CLIENT", "PAUSE", -3, ADMIN, "Holds back commands of all clients."),
    sub("CLIENT", "REPLY", 3, OWN, "Sends replies, sends none, or skips one."),
    sub("CLIENT", "SETINFO", 4, OWN, "Notes which client library is used."),
    sub("CLIENT", "SETNAME", 3, OWN, "Names the connection."),
    sub("CLIENT", "TRACKING", -3, OWN, "Switches client-side caching."),
    sub("CLIENT", "TRACKINGINFO", 2, OWN, "Describes client-side caching of the connection."),
    sub("CLIENT", "UNBLOCK", -3, ADMIN, "Lets a client that waits go on."),
    sub("CLIENT", "UNPAUSE", 2, ADMIN, "Ends a pause."),
];

static COMMAND: &[Subcommand] = &[
    sub("COMMAND", "COUNT", 2, ANY_TIME, "Returns the number of commands."),
    sub("COMMAND", "DOCS", -2, ANY_TIME, "Documents commands."),
    sub("COMMAND", "GETKEYS", -4, ANY_TIME, "Returns the keys in a request."),
    sub("COMMAND", "GETKEYSANDFLAGS", -4, ANY_TIME, "Returns the keys in a request and how they are used."),
    help("COMMAND"),
    sub("COMMAND", "INFO", -2, ANY_TIME, "Describes commands."),
    sub("COMMAND", "LIST", -2, ANY_TIME, "Returns the names of commands."),
];

static CONFIG: &[Subcommand] = &[
    sub("CONFIG", "GET", -3, ADMIN, "Returns settings."),
    help("CONFIG"),
    sub("CONFIG", "RESETSTAT", 2, ADMIN, "Resets the counters of INFO."),
    sub("CONFIG", "REWRITE", 2, ADMIN, "Writes settings to the file they came from."),
    sub("CONFIG", "SET", -4, ADMIN, "Changes settings."),
];

static FUNCTION: &[Subcommand] = &[
    sub("FUNCTION", "DELETE", 3, CHANGES_LIBRARIES, "Removes a library."),
    sub("FUNCTION", "DUMP", 2, Flags::NO_SCRIPT, "Returns all libraries in one piece."),
    sub("FUNCTION", "FLUSH", -2, CHANGES_LIBRARIES, "Removes all libraries."),
    help("FUNCTION"),
    sub("FUNCTION", "KILL", 2, Flags::NO_SCRIPT, "Stops a function that runs too long."),
    sub("FUNCTION", "LIST", -2, Flags::NO_SCRIPT, "Returns the libraries."),
    sub("FUNCTION", "LOAD", -3, CHANGES_LIBRARIES.with(Flags::GROWS), "Makes a library."),
    sub("FUNCTION", "RESTORE", -3, CHANGES_LIBRARIES.with(Flags::GROWS), "Makes the libraries of a dump."),
    sub("FUNCTION", "STATS", 2, Flags::NO_SCRIPT, "Returns the function that runs, and numbers."),
];

const CHANGES_LIBRARIES: Flags = Flags::WRITE.with(Flags::NO_SCRIPT);

static LATENCY: &[Subcommand] = &[
    sub("LATENCY", "DOCTOR", 2, ADMIN, "Explains the samples in words."),
    sub("LATENCY", "GRAPH", 3, ADMIN, "Draws the samples of an event."),
    help("LATENCY"),
    sub("LATENCY", "HISTOGRAM", -2, ADMIN, "Returns the distribution of the latencies of commands."),
    sub("LATENCY", "HISTORY", 3, ADMIN, "Returns the samples of an event."),
    sub("LATENCY", "LATEST", 2, ADMIN, "Returns the latest sample of each event."),
    sub("LATENCY", "RESET", -2, ADMIN, "Forgets samples."),
];

static MEMORY: &[Subcommand] = &[
    sub("MEMORY", "DOCTOR", 2, Flags::NONE, "Explains memory problems in words."),
    help("MEMORY"),
    sub("MEMORY", "MALLOC-STATS", 2, Flags::NONE, "Returns counters of the allocator."),
    sub("MEMORY", "PURGE", 2, Flags::NONE, "Asks the allocator to return memory."),
    sub("MEMORY", "STATS", 2, Flags::NONE, "Returns what memory is used for."),
    sub("MEMORY", "USAGE", -3, Flags::READ, "Estimates the memory of a key."),
];

static MODULE: &[Subcommand] =
    &[help("MODULE"), sub("MODULE", "LIST", 2, Flags::ADMIN.with(Flags::NO_SCRIPT), "Lists modules.")];

static OBJECT: &[Subcommand] = &[
    sub("OBJECT", "ENCODING", 3, Flags::READ, "Returns the encoding of a value."),
    sub("OBJECT", "FREQ", 3, Flags::READ, "Returns how often a key is used, on a logarithmic scale."),
    help("OBJECT"),
    sub("OBJECT", "IDLETIME", 3, Flags::READ, "Returns the seconds since a key was used."),
    sub("OBJECT", "REFCOUNT", 3, Flags::READ, "Returns the number of references to a value."),
];

const LISTENING: Flags = Flags::PUBSUB.with(ANY_TIME);

static PUBSUB: &[Subcommand] = &[
    sub("PUBSUB", "CHANNELS", -2, LISTENING, "Returns the channels with subscribers."),
    help("PUBSUB"),
    sub("PUBSUB", "NUMPAT", 2, LISTENING, "Returns the number of subscribed patterns."),
    sub("PUBSUB", "NUMSUB", -2, LISTENING, "Returns the number of subscribers of channels."),
    sub("PUBSUB", "SHARDCHANNELS", -2, LISTENING, "Returns the shard channels with subscribers."),
    sub("PUBSUB", "SHARDNUMSUB", -2, LISTENING, "Returns the number of subscribers of shard channels."),
];

static SCRIPT: &[Subcommand] = &[
    sub("SCRIPT", "DEBUG", 3, Flags::NO_SCRIPT, "Sets the debug mode: there is none but off."),
    sub("SCRIPT", "EXISTS", -3, Flags::NO_SCRIPT, "Tells which scripts are known."),
    sub("SCRIPT", "FLAGS", -4, Flags::NO_SCRIPT, "Takes flags for a script, none of which is needed."),
    sub("SCRIPT", "FLUSH", -2, Flags::NO_SCRIPT, "Forgets all scripts."),
    sub("SCRIPT", "GC", 2, Flags::NO_SCRIPT, "Gives the memory of all engines back."),
    help("SCRIPT"),
    sub("SCRIPT", "KILL", 2, Flags::NO_SCRIPT, "Stops a script that runs too long."),
    sub("SCRIPT", "LATENCY", 2, Flags::NO_SCRIPT, "Returns times of scripts: none are kept."),
    sub("SCRIPT", "LIST", 2, Flags::NO_SCRIPT, "Returns the scripts that are known."),
    sub("SCRIPT", "LOAD", 3, Flags::NO_SCRIPT.with(Flags::STALE), "Remembers a script."),
];

static SLOWLOG: &[Subcommand] = &[
    sub("SLOWLOG", "GET", -2, Flags::ADMIN.with(ANY_TIME), "Returns the entries of the slow log."),
    help("SLOWLOG"),
    sub("SLOWLOG", "LEN", 2, Flags::ADMIN.with(ANY_TIME), "Returns the number of entries of the slow log."),
    sub("SLOWLOG", "RESET", 2, Flags::ADMIN.with(ANY_TIME), "Empties the slow log."),
];

static XGROUP: &[Subcommand] = &[
    sub("XGROUP", "CREATE", -5, Flags::WRITE.with(Flags::GROWS), "Creates a consumer group."),
    sub("XGROUP", "CREATECONSUMER", 5, Flags::WRITE.with(Flags::GROWS), "Creates a consumer."),
    sub("XGROUP", "DELCONSUMER", 5, Flags::WRITE, "Removes a consumer."),
    sub("XGROUP", "DESTROY", 4, Flags::WRITE, "Removes a consumer group."),
    help("XGROUP"),
    sub("XGROUP", "SETID", -5, Flags::WRITE, "Sets the last delivered entry of a group."),
];

static XINFO: &[Subcommand] = &[
    sub("XINFO", "CONSUMERS", 4, Flags::READ, "Describes the consumers of a group."),
    sub("XINFO", "GROUPS", 3, Flags::READ, "Describes the groups of a stream."),
    help("XINFO"),
    sub("XINFO", "STREAM", -3, Flags::READ, "Describes a stream."),
];

#[cfg(test)]
mod tests {
    use super::{all, of};

    /// Each container's sub-commands are in the list of all, and each has counters of its own.
    #[test]
    fn all_are_listed() {
        for subcommand in damselfly_commands::all().flat_map(of) {
            assert!(all().any(|other| std::ptr::eq(other, subcommand)), "{}", subcommand.full_name());
        }
        for (number, subcommand) in all().enumerate() {
            assert_eq!(subcommand.counter(), damselfly_commands::all().count() + number);
        }
    }
}
