//! A JSON value in sixteen bytes.
//!
//! ```text
//! tag | payload                                    behind it
//! ----+------------------------------------------  -------------------------------------------
//! null, true, false, 8 bytes of number             nothing
//! short text: length and up to 14 bytes            nothing
//! long text, number beyond 64 bits: pointer        Arc<Box<str>>: 32 bytes and the text
//! array: pointer                                   Arc<Vec<Value>>: 48 bytes and 16 per element
//! object: pointer                                  Arc<Vec<Member>>: 48 bytes and 32 per member
//! ```
//!
//! Documents are mostly numbers, flags, short strings and field names, and those should cost their slot and nothing
//! more; that is why long strings pay with a second pointer rather than all values with a wider slot.
//!
//! Members of an object are sorted by name (by bytes, which for UTF-8 is by code point). That is the order in which
//! Dragonfly prints them, and it makes lookup a binary search without an index. Of two members with one name the
//! first stays.
//!
//! Containers are reference counted and copied when written while shared, so a clone of a document is one pointer.
//! Within one document nothing is shared: what is inserted in several places is copied. The count of bytes relies on
//! that, and each function that changes a container reports by how much (`grown`).

use damselfly_structures::alloc::good_size;
use damselfly_structures::moves::Mover;
use std::cmp::Ordering;
use std::sync::Arc;

/// How deep values may be nested. Recursion over a document is bounded by it.
pub const DEPTH_MAX: usize = 128;

/// Bytes of text that need no allocation.
const SHORT_MAX: usize = 14;

/// What `Arc` stores in front of its payload: two counters.
const RC_COUNTS: usize = 2 * size_of::<usize>();

const TEXT_HEAD: usize = good_size(RC_COUNTS + size_of::<Box<str>>());
const VEC_HEAD: usize = good_size(RC_COUNTS + size_of::<Vec<Value>>());

const _: () = assert!(size_of::<Value>() == 16 && size_of::<Member>() == 32);

/// A string, in place if short.
#[derive(Clone, Debug)]
enum Text {
    Short(u8, [u8; SHORT_MAX]),
    Long(Arc<Box<str>>),
}

fn relocate_text(text: &mut Arc<Box<str>>, mover: &mut Mover<'_>) {
    if let Some(text) = mover.shared(text) {
        mover.bytes(text);
    }
}

impl Text {
    fn new(text: &str) -> Text {
        if text.len() > SHORT_MAX {
            return Text::Long(Arc::new(text.into()));
        }
        let mut bytes = [0; SHORT_MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Text::Short(text.len() as u8, bytes)
    }

    #[inline]
    fn as_str(&self) -> &str {
        match self {
            Text::Short(len, bytes) => {
                std::str::from_utf8(&bytes[..usize::from(*len)]).expect("made from a str")
            }
            Text::Long(text) => text,
        }
    }

    #[inline]
    fn as_bytes(&self) -> &[u8] {
        match self {
            Text::Short(len, bytes) => &bytes[..usize::from(*len)],
            Text::Long(text) => text.as_bytes(),
        }
    }

    fn relocate(&mut self, mover: &mut Mover<'_>) {
        if let Text::Long(text) = self {
            relocate_text(text, mover);
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Text::Short(..) => 0,
            Text::Long(text) => TEXT_HEAD + good_size(text.len()),
        }
    }
}

#[derive(Clone, Debug)]
enum Repr {
    Null,
    Bool(bool),
    Int(i64),
    /// Only above `i64::MAX`, so equal numbers have one form.
    Uint(u64),
    /// Always finite.
    Double(f64),
    /// Digits of an integer that 64 bits cannot hold, as they were written.
    Big(Arc<Box<str>>),
    Text(Text),
    Array(Arc<Vec<Value>>),
    Object(Arc<Vec<Member>>),
}

/// A JSON value. [`Value::view`] tells what it is.
#[derive(Clone, Debug)]
pub struct Value(Repr);

/// A named member of an object.
#[derive(Clone, Debug)]
pub struct Member {
    name: Text,
    value: Value,
}

impl Member {
    pub(crate) fn new(name: &str, value: Value) -> Member {
        Member { name: Text::new(name), value }
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The value.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The name's bytes, which need no check that they are UTF-8.
    pub(crate) fn name_bytes(&self) -> &[u8] {
        self.name.as_bytes()
    }

    fn heap_bytes(&self) -> usize {
        self.name.heap_bytes() + self.value.heap_bytes()
    }
}

/// What a value is.
#[derive(Clone, Copy, Debug)]
pub enum View<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer in the range of `i64`.
    Int(i64),
    /// An integer above it, in the range of `u64`.
    Uint(u64),
    /// A number with a fraction or an exponent. Finite.
    Double(f64),
    /// An integer beyond both, as its digits.
    Big(&'a str),
    /// A string.
    Text(&'a str),
    /// An array.
    Array(&'a [Value]),
    /// An object, sorted by name.
    Object(&'a [Member]),
}

impl Value {
    /// `null`.
    pub const NULL: Value = Value(Repr::Null);

    /// `true` or `false`.
    pub fn from_bool(flag: bool) -> Value {
        Value(Repr::Bool(flag))
    }

    /// An integer; `None` if 64 bits cannot hold it.
    pub fn from_integer(number: i128) -> Option<Value> {
        if let Ok(number) = i64::try_from(number) {
            return Some(Value(Repr::Int(number)));
        }
        u64::try_from(number).ok().map(|number| Value(Repr::Uint(number)))
    }

    /// A number with a fraction; `None` if it is infinite or none, which JSON cannot write.
    pub fn from_double(number: f64) -> Option<Value> {
        number.is_finite().then_some(Value(Repr::Double(number)))
    }

    /// A string.
    pub fn from_text(text: &str) -> Value {
        Value(Repr::Text(Text::new(text)))
    }

    pub(crate) fn from_digits(digits: &str) -> Value {
        Value(Repr::Big(Arc::new(digits.into())))
    }

    /// An array.
    pub fn from_elements(mut elements: Vec<Value>) -> Value {
        elements.shrink_to_fit();
        Value(Repr::Array(Arc::new(elements)))
    }

    /// An object. The members are sorted; of equal names the first stays.
    pub(crate) fn from_members(mut members: Vec<Member>) -> Value {
        let sorted = members.is_sorted_by(|a, b| a.name.as_bytes() < b.name.as_bytes());
        if !sorted {
            members.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
            members.dedup_by(|later, first| later.name.as_bytes() == first.name.as_bytes());
        }
        members.shrink_to_fit();
        Value(Repr::Object(Arc::new(members)))
    }

    /// What the value is.
    #[inline]
    pub fn view(&self) -> View<'_> {
        match &self.0 {
            Repr::Null => View::Null,
            Repr::Bool(flag) => View::Bool(*flag),
            Repr::Int(number) => View::Int(*number),
            Repr::Uint(number) => View::Uint(*number),
            Repr::Double(number) => View::Double(*number),
            Repr::Big(digits) => View::Big(digits),
            Repr::Text(text) => View::Text(text.as_str()),
            Repr::Array(elements) => View::Array(elements),
            Repr::Object(members) => View::Object(members),
        }
    }

    /// The bytes of a string, which need no check that they are UTF-8.
    #[inline]
    pub(crate) fn text_bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            Repr::Text(text) => Some(text.as_bytes()),
            _ => None,
        }
    }

    /// Gives allocations other addresses; see [`Mover`]. As deep as the value is nested.
    pub(crate) fn relocate(&mut self, mover: &mut Mover<'_>) {
        match &mut self.0 {
            Repr::Null | Repr::Bool(_) | Repr::Int(_) | Repr::Uint(_) | Repr::Double(_) => {}
            Repr::Big(digits) => relocate_text(digits, mover),
            Repr::Text(text) => text.relocate(mover),
            Repr::Array(elements) => {
                if let Some(elements) = mover.shared(elements) {
                    mover.vec(elements);
                    elements.iter_mut().for_each(|element| element.relocate(mover));
                }
            }
            Repr::Object(members) => {
                if let Some(members) = mover.shared(members) {
                    mover.vec(members);
                    for member in members {
                        member.name.relocate(mover);
                        member.value.relocate(mover);
                    }
                }
            }
        }
    }

    /// The name of its type, as JSON.TYPE says it.
    pub fn type_name(&self) -> &'static str {
        match self.view() {
            View::Null => "null",
            View::Bool(_) => "boolean",
            View::Int(_) | View::Uint(_) | View::Big(_) => "integer",
            View::Double(_) => "number",
            View::Text(_) => "string",
            View::Array(_) => "array",
            View::Object(_) => "object",
        }
    }

    /// The member with this name, if the value is an object that has it.
    pub fn member(&self, name: &str) -> Option<&Value> {
        let Repr::Object(members) = &self.0 else { return None };
        find(members, name).ok().map(|at| &members[at].value)
    }

    pub(crate) fn member_index(&self, name: &str) -> Option<usize> {
        let Repr::Object(members) = &self.0 else { return None };
        find(members, name).ok()
    }

    /// Number of elements or members; zero for what has none.
    pub(crate) fn children(&self) -> usize {
        match &self.0 {
            Repr::Array(elements) => elements.len(),
            Repr::Object(members) => members.len(),
            _ => 0,
        }
    }

    /// The element or the member's value at a place.
    pub(crate) fn child(&self, at: usize) -> Option<&Value> {
        match &self.0 {
            Repr::Array(elements) => elements.get(at),
            Repr::Object(members) => members.get(at).map(|member| &member.value),
            _ => None,
        }
    }

    /// Like [`Value::child`], for writing. The container stops being shared.
    pub(crate) fn child_mut(&mut self, at: usize, grown: &mut isize) -> Option<&mut Value> {
        match &mut self.0 {
            Repr::Array(elements) => unshare(elements, grown).get_mut(at),
            Repr::Object(members) => unshare(members, grown).get_mut(at).map(|member| &mut member.value),
            _ => None,
        }
    }

    /// Removes the element or member at a place.
    pub(crate) fn remove_child(&mut self, at: usize, grown: &mut isize) {
        match &mut self.0 {
            Repr::Array(elements) => {
                *grown -= elements[at].heap_bytes() as isize;
                edit(elements, grown, |elements| drop(elements.remove(at)));
            }
            Repr::Object(members) => {
                *grown -= members[at].heap_bytes() as isize;
                edit(members, grown, |members| drop(members.remove(at)));
            }
            _ => panic!("only containers have children to remove"),
        }
    }

    /// Replaces a range of an array's elements and gives back what was there; `None` if the value is no array.
    pub(crate) fn splice(
        &mut self,
        range: std::ops::Range<usize>,
        with: Vec<Value>,
        grown: &mut isize,
    ) -> Option<Vec<Value>> {
        let Repr::Array(elements) = &mut self.0 else { return None };
        *grown += with.iter().map(Value::heap_bytes).sum::<usize>() as isize;
        let removed: Vec<_> = edit(elements, grown, |elements| elements.splice(range, with).collect());
        *grown -= removed.iter().map(Value::heap_bytes).sum::<usize>() as isize;
        Some(removed)
    }

    /// Adds or replaces a member; `false` if the value is no object.
    pub(crate) fn put_member(&mut self, name: &str, value: Value, grown: &mut isize) -> bool {
        let Repr::Object(members) = &mut self.0 else { return false };
        match find(members, name) {
            Ok(at) => unshare(members, grown)[at].value.replace(value, grown),
            Err(at) => {
                let member = Member::new(name, value);
                *grown += member.heap_bytes() as isize;
                edit(members, grown, |members| members.insert(at, member));
            }
        }
        true
    }

    /// Puts another value in place of this one.
    pub(crate) fn replace(&mut self, value: Value, grown: &mut isize) {
        *grown += value.heap_bytes() as isize - self.heap_bytes() as isize;
        *self = value;
    }

    /// Bytes taken from the allocator by the value and everything below, besides its own sixteen.
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Repr::Null | Repr::Bool(_) | Repr::Int(_) | Repr::Uint(_) | Repr::Double(_) => 0,
            Repr::Big(digits) => TEXT_HEAD + good_size(digits.len()),
            Repr::Text(text) => text.heap_bytes(),
            Repr::Array(elements) => shell(elements) + elements.iter().map(Value::heap_bytes).sum::<usize>(),
            Repr::Object(members) => shell(members) + members.iter().map(Member::heap_bytes).sum::<usize>(),
        }
    }

    /// Frees what is below the value, from the end, as long as the budget of values lasts; true when nothing is left.
    /// What a clone of the document still has is not touched: letting go of it costs nothing.
    pub(crate) fn free_some(&mut self, budget: &mut usize, freed: &mut usize) -> bool {
        match &mut self.0 {
            Repr::Array(elements) => {
                free_children(elements, budget, freed, |element| element, Value::heap_bytes)
            }
            Repr::Object(members) => {
                free_children(members, budget, freed, |member| &mut member.value, Member::heap_bytes)
            }
            _ => true,
        }
    }

    /// Whether a clone of the document has this container too.
    fn is_shared(&self) -> bool {
        match &self.0 {
            Repr::Array(elements) => Arc::strong_count(elements) > 1,
            Repr::Object(members) => Arc::strong_count(members) > 1,
            _ => false,
        }
    }

    /// How deep the value is nested: 0 for what is no container.
    pub(crate) fn depth(&self) -> usize {
        match &self.0 {
            Repr::Array(elements) => 1 + elements.iter().map(Value::depth).max().unwrap_or(0),
            Repr::Object(members) => 1 + members.iter().map(|member| member.value.depth()).max().unwrap_or(0),
            _ => 0,
        }
    }

    /// A copy that shares nothing that can be written.
    pub(crate) fn deep_clone(&self) -> Value {
        Value(match &self.0 {
            Repr::Array(elements) => Repr::Array(Arc::new(elements.iter().map(Value::deep_clone).collect())),
            Repr::Object(members) => {
                let copy = |member: &Member| Member {
                    name: member.name.deep_clone(),
                    value: member.value.deep_clone(),
                };
                Repr::Object(Arc::new(members.iter().map(copy).collect()))
            }
            Repr::Text(text) => Repr::Text(text.deep_clone()),
            Repr::Big(digits) => Repr::Big(Arc::new(Box::clone(digits))),
            other => other.clone(),
        })
    }

    /// Equality as JSON.ARRINDEX has it: `3` and `3.0` differ.
    pub fn same(&self, other: &Value) -> bool {
        match (&self.0, &other.0) {
            (Repr::Null, Repr::Null) => true,
            (Repr::Bool(a), Repr::Bool(b)) => a == b,
            (Repr::Int(a), Repr::Int(b)) => a == b,
            (Repr::Uint(a), Repr::Uint(b)) => a == b,
            (Repr::Double(a), Repr::Double(b)) => a == b,
            (Repr::Big(a), Repr::Big(b)) => a == b,
            (Repr::Text(a), Repr::Text(b)) => a.as_bytes() == b.as_bytes(),
            (Repr::Array(a), Repr::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.same(b))
            }
            (Repr::Object(a), Repr::Object(b)) => {
                a.len() == b.len()
                    && a.iter()
                        .zip(b.iter())
                        .all(|(a, b)| a.name.as_bytes() == b.name.as_bytes() && a.value.same(&b.value))
            }
            _ => false,
        }
    }

    /// Order as filters have it: numbers by value whatever their form, strings by code points; `None` for pairs that
    /// have no order.
    pub(crate) fn compare(&self, other: &Value) -> Option<Ordering> {
        if let (View::Text(a), View::Text(b)) = (self.view(), other.view()) {
            return Some(a.cmp(b));
        }
        if let (Some(a), Some(b)) = (self.as_integer(), other.as_integer()) {
            return Some(a.cmp(&b));
        }
        self.as_double()?.partial_cmp(&other.as_double()?)
    }

    /// The number, if it is an integer of at most 64 bits.
    pub(crate) fn as_integer(&self) -> Option<i128> {
        match self.0 {
            Repr::Int(number) => Some(number.into()),
            Repr::Uint(number) => Some(number.into()),
            _ => None,
        }
    }

    /// The number, rounded. A very long integer may be infinite.
    pub(crate) fn as_double(&self) -> Option<f64> {
        match &self.0 {
            Repr::Int(number) => Some(*number as f64),
            Repr::Uint(number) => Some(*number as f64),
            Repr::Double(number) => Some(*number),
            Repr::Big(digits) => digits.parse().ok(),
            _ => None,
        }
    }
}

impl Text {
    fn deep_clone(&self) -> Text {
        match self {
            Text::Short(..) => self.clone(),
            Text::Long(text) => Text::Long(Arc::new(Box::clone(text))),
        }
    }
}

/// The recursion is as deep as the document, so at most [`DEPTH_MAX`].
fn free_children<T>(
    container: &mut Arc<Vec<T>>,
    budget: &mut usize,
    freed: &mut usize,
    value_of: impl Fn(&mut T) -> &mut Value,
    heap_bytes: impl Fn(&T) -> usize,
) -> bool {
    let Some(children) = Arc::get_mut(container) else { return true };
    while let Some(last) = children.last_mut() {
        if *budget == 0 {
            return false;
        }
        let value = value_of(last);
        if !value.is_shared() {
            if !value.free_some(budget, freed) {
                return false;
            }
            // Nothing is below it any more, so this does not walk.
            *freed += heap_bytes(last);
        }
        // Paid for when it goes and not on the way down, so that every step frees something.
        *budget = budget.saturating_sub(1);
        children.pop();
    }
    true
}

fn find(members: &[Member], name: &str) -> Result<usize, usize> {
    members.binary_search_by(|member| member.name.as_bytes().cmp(name.as_bytes()))
}

/// Bytes of a container without what its elements hold.
fn shell<T>(container: &Vec<T>) -> usize {
    VEC_HEAD + good_size(container.capacity() * size_of::<T>())
}

/// The elements, copied first if a clone of the document still has them. The copy has no spare room, which may
/// change the count.
fn unshare<'a, T: Clone>(container: &'a mut Arc<Vec<T>>, grown: &mut isize) -> &'a mut Vec<T> {
    let before = shell(container) as isize;
    Arc::make_mut(container);
    let elements = Arc::get_mut(container).expect("just made our own");
    *grown += shell(elements) as isize - before;
    elements
}

/// Changes which elements a container has. What they hold is counted by the caller.
fn edit<T: Clone, R>(
    container: &mut Arc<Vec<T>>,
    grown: &mut isize,
    change: impl FnOnce(&mut Vec<T>) -> R,
) -> R {
    let elements = unshare(container, grown);
    let before = shell(elements) as isize;
    let result = change(elements);
    // Give room back when three quarters are empty; half stays, so that a queue does not reallocate all the time.
    if elements.capacity() > 8 && elements.len() * 4 <= elements.capacity() {
        elements.shrink_to(elements.len() * 2);
    }
    *grown += shell(elements) as isize - before;
    result
}
