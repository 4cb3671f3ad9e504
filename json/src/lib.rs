//! JSON documents and JSONPath.
//!
//! [`Document`] is the value behind a key of type `ReJSON-RL`; [`Path`] says which parts of it a command is about.
//! Both are pure: bytes in, values and bytes out. Replies are the command layer's, which needs to know the following.
//!
//! # Reply shapes
//!
//! A path that starts with `$` may match any number of values, and the reply is an array with one item per match, in
//! document order. A path of the older form ([`Path::is_legacy`]) is answered with one item: the *last* match unless
//! the table says *first* (then the first that is not nil). Nil items stand for matches of the wrong type.
//!
//! | Command | function | `$` path: item per match | legacy path | legacy, no match / wrong type | no key |
//! | --- | --- | --- | --- | --- | --- |
//! | JSON.GET, no path | [`Document::to_json`] | the text, compact whatever the options | | | nil |
//! | JSON.GET | [`Document::write_get`] | one text: array of matches, or object of arrays by path | one text: match, or object of matches | `ERR invalid JSON path` | nil |
//! | JSON.MGET | [`Document::mget`] | text of the array of matches | text of the match | nil | nil |
//! | JSON.TYPE | [`Document::types`] | type name | type name | nil | nil |
//! | JSON.STRLEN, OBJLEN | [`Document::string_lengths`], [`Document::object_lengths`] | length or nil | *first* length | nil / `WRONGTYPE wrong JSON type of path value` | legacy nil, `$` error |
//! | JSON.ARRLEN | [`Document::array_lengths`] | length or nil | *first* length | same | nil |
//! | JSON.OBJKEYS | [`Document::object_keys`] | array of names, empty for what is no object | *first* array | nil / empty array | legacy nil, `$` error |
//! | JSON.ARRINDEX | [`Document::array_index`] | place, -1 or nil | place or -1 | `WRONGTYPE wrong JSON type of path value` | error |
//! | JSON.SET, MSET | [`Document::set`] | OK, or nil if the condition failed | same | `ERR syntax error` where nothing can be put | root: created; else error |
//! | JSON.MERGE | [`Document::merge`] | OK | OK | `ERR syntax error` | root: created; else `ERR syntax error` |
//! | JSON.DEL, FORGET | [`Document::delete`] | one integer | one integer | 0 | 0 |
//! | JSON.CLEAR | [`Document::clear`] | one integer | one integer | 0 | error |
//! | JSON.TOGGLE | [`Document::toggle`] | 0, 1 or nil | bulk `true` or `false` | `WRONGTYPE wrong JSON type of path value` | error |
//! | JSON.STRAPPEND, ARRAPPEND, ARRINSERT, ARRTRIM | [`Document::append_string`], [`Document::append_elements`], [`Document::insert_elements`], [`Document::trim`] | new length or nil | new length | same | error |
//! | JSON.ARRPOP | [`Document::pop`] | text of the element or nil | text | nil | error |
//! | JSON.NUMINCRBY, NUMMULTBY | [`Document::arithmetic`] | one text: [`numbers_to_json`] | text of the number | `WRONGTYPE wrong JSON type of path value` | error |
//! | JSON.RESP | [`Document::get`] | value as RESP | value as RESP | nil | error |
//! | JSON.DEBUG MEMORY, FIELDS | [`Document::memory`], [`Document::fields`] | integer | integer | nil | error |
//!
//! "error" in the last column is `ERR no such key`. JSON.RESP writes null as nil, flags as the simple strings `true`
//! and `false`, integers as integers, doubles as doubles (RESP2: bulk), strings as bulk, an array as `[` followed by
//! its elements (RESP3: the elements alone), an object as `{` followed by pairs of name and value. In RESP3 JSON.TYPE
//! with a `$` path wraps each item in an array, NUMINCRBY and NUMMULTBY answer with the parsed numbers, and legacy
//! replies come in an array of one.
//!
//! JSON.GET and JSON.SET at the root also work on strings: GET parses it, SET replaces it.
//!
//! # Bounds
//!
//! Depth ([`DEPTH_MAX`]), length of a path ([`path::PATH_LEN_MAX`]) and its segments, work per evaluation (a
//! multiple of the document's size), growth and length of a reply ([`GROWTH_MAX`]), places changed by
//! one command ([`TARGETS_MAX`]).
//!
//! # Known differences from Dragonfly 1.40
//!
//! Filters, unions and steps in slices work here and are syntax errors there. An index beyond the beginning (`[-9]`)
//! matches nothing here and the first element there. Integer arithmetic is exact here; there it goes through doubles.
//! JSON.MERGE at a path that does not exist yet puts the patch there, as in RedisJSON; there it does nothing.
//! Deeper nesting is accepted (128 against 64), comments are not.

mod document;
mod parse;
pub mod path;
mod value;
mod write;

pub use document::{
    Arithmetic, Condition, Deleted, Document, GROWTH_MAX, JsonError, TARGETS_MAX, numbers_to_json,
    string_to_json,
};
pub use parse::ParseError;
pub use path::{Path, PathError};
pub use value::{DEPTH_MAX, Member, Value, View};
pub use write::{Format, Writing, write_double};
