//! The shape of the table: what is known of a name, and how a name is found.
//!
//! Every setting is one [`Row`], whether it came from Dragonfly's flags, from Redis' configuration or is
//! ours: from the rows follow the command line, the environment, `--help`, CONFIG GET and CONFIG SET. Adding
//! a setting is adding a row; a getter that names a row which does not exist fails to compile. Next: rows.rs
//! is the table itself.

use crate::rows::ROWS;
use crate::value::Kind;

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The name, in lower case and with underscores: what `--name` and `DFLY_name` are compared with.
    pub name: &'static str,
    /// Other names of the same setting, also with underscores.
    pub aliases: &'static [&'static str],
    /// The heading it stands under in `--help`.
    pub area: Area,
    /// What values it takes.
    pub kind: Kind,
    /// The value when nobody says anything, as text.
    pub default: &'static str,
    /// What CONFIG GET and CONFIG SET may do with it.
    pub exposure: Exposure,
    /// Whether anything happens when it is set.
    pub effect: Effect,
    /// Whether CONFIG GET prints dashes: names that Redis has keep the spelling that Redis' clients expect.
    pub dashes: bool,
    /// One sentence for `--help`; empty where there is no effect to describe.
    pub help: &'static str,
}

/// Headings of `--help`, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the headings are their own description")]
pub enum Area {
    Network,
    Threads,
    Memory,
    Encodings,
    Snapshots,
    Replication,
    Cluster,
    Security,
    Scripts,
    Observation,
    Logging,
    Start,
}

impl Area {
    /// The heading.
    pub const fn title(self) -> &'static str {
        match self {
            Area::Network => "Network and connections",
            Area::Threads => "Threads",
            Area::Memory => "Memory, eviction and data",
            Area::Encodings => "Encodings of small values",
            Area::Snapshots => "Snapshots",
            Area::Replication => "Replication",
            Area::Cluster => "Cluster",
            Area::Security => "TLS, passwords and ACLs",
            Area::Scripts => "Scripts and transactions",
            Area::Observation => "Slow log, latency and events",
            Area::Logging => "Logging",
            Area::Start => "Starting",
        }
    }
}

/// What CONFIG may do with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// CONFIG does not know the name.
    Hidden,
    /// CONFIG GET answers, CONFIG SET refuses.
    Fixed,
    /// CONFIG SET changes it.
    Settable,
}

/// Whether anything happens when a row is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The server acts on it.
    Used,
    /// The server does not have what this steers in this version. Setting it earns a warning.
    NotYet,
    /// The server always does what the default says. Asking for that is fine; asking for another earns a
    /// warning.
    Always,
    /// Accepted because manifests and clients set it; setting it earns a warning.
    Ignored,
}

/// The index of the row called `name`, at compile time.
///
/// # Panics
/// When there is none: as it runs in `const` blocks, that is a compile error.
pub(crate) const fn row(name: &str) -> usize {
    let mut index = 0;
    while index < ROWS.len() {
        if same(ROWS[index].name, name) {
            return index;
        }
        index += 1;
    }
    panic!("no row of this name")
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut index = 0;
    while index < a.len() && index < b.len() && a[index] == b[index] {
        index += 1;
    }
    index == a.len() && index == b.len()
}

/// One of a row's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Index of the row.
    pub row: usize,
    /// The name, with underscores.
    pub name: &'static str,
}

impl Entry {
    /// The row behind the name.
    pub fn row(self) -> &'static Row {
        &ROWS[self.row]
    }

    /// The spelling CONFIG GET answers with when it is asked by a pattern.
    pub fn spelled(self) -> String {
        if self.row().dashes { self.name.replace('_', "-") } else { self.name.into() }
    }
}

/// All names, canonical ones and aliases, in the table's order.
pub(crate) fn entries() -> impl Iterator<Item = Entry> {
    ROWS.iter().enumerate().flat_map(|(index, row)| {
        let names = std::iter::once(row.name).chain(row.aliases.iter().copied());
        names.map(move |name| Entry { row: index, name })
    })
}

/// Finds the entry spelled `name`. Dashes, and for CONFIG also dots, are as good as underscores.
pub(crate) fn find(name: &str, ignore_case: bool) -> Option<Entry> {
    let wanted = normal(name);
    entries().find(
        |entry| {
            if ignore_case { entry.name.eq_ignore_ascii_case(&wanted) } else { entry.name == wanted }
        },
    )
}

/// `name` with underscores.
pub(crate) fn normal(name: &str) -> String {
    name.replace(['-', '.'], "_")
}
