//! How collections are reached.
//!
//! One trait says what every collection type can do, and three operations are all that handlers need: [`Keyspace::view`]
//! to read, [`Keyspace::edit`] to change one that is there, [`Keyspace::edit_or_new`] to change or begin one. They
//! answer the missing key, the expired key and the key of another type, so no handler does; and after a change they
//! book the bytes and let an emptied collection go with its key, so no handler can forget.
//!
//! Members may expire before their key. All three remove those first whose time has come, so a handler sees none of
//! them and the length it sees is right; what is removed is announced like any other change.

use crate::{Class, Expiry, Keyspace, Loc, Object, Type, UnixMs, Value};

/// The key holds another type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongType;

/// A type of collection that a key can hold.
pub trait Collection: Sized {
    /// Its type.
    const TYPE: Type;
    /// An empty one, for a key that begins with it.
    fn begin(hash_seed: u64) -> Self;
    /// Wrapped for storing.
    fn wrap(self) -> Object;
    /// The collection inside an object, if it is of this type.
    fn of(object: &Object) -> Option<&Self>;
    /// As `of`, to be changed.
    fn of_mut(object: &mut Object) -> Option<&mut Self>;
    /// Members may have an expiry: the event that tells of those that were removed for it.
    const MEMBERS_EXPIRE: Option<(Class, &'static str)> = None;
    /// A time before which no member expires; None if none ever does.
    fn next_expiry(&self) -> Option<UnixMs> {
        None
    }
    /// Removes the members that have expired by `now`; how many.
    fn expire_members(&mut self, _now: UnixMs) -> usize {
        0
    }
    /// What it holds from the allocator, without the box that some are in.
    fn heap_bytes(&self) -> usize;
    /// Whether the key must go. Streams are never empty in this sense: a stream without entries stays.
    fn is_gone(&self) -> bool;
}

/// What became of a collection that was edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit<R> {
    /// What the closure returned.
    pub value: R,
    /// The collection was emptied and its key removed; announce `del` after the change itself.
    pub gone: bool,
}

impl Keyspace {
    /// The collection at a location.
    pub fn collection<C: Collection>(&self, db: usize, loc: Loc) -> Result<&C, WrongType> {
        match self.value(db, loc) {
            Value::Object(object) => C::of(object).ok_or(WrongType),
            _ => Err(WrongType),
        }
    }

    /// The collection under a key for reading, counted as a hit or a miss; None if there is none.
    pub fn view<C: Collection>(&mut self, db: usize, key: &[u8]) -> Result<Option<&C>, WrongType> {
        match self.read(db, key) {
            Some(loc) if self.is_left::<C>(db, loc) => self.collection(db, loc).map(Some),
            _ => Ok(None),
        }
    }

    /// As [`Keyspace::view`], for commands that write elsewhere: not counted.
    pub fn peek<C: Collection>(&mut self, db: usize, key: &[u8]) -> Result<Option<&C>, WrongType> {
        match self.find_collection::<C>(db, key)? {
            Some(loc) => self.collection(db, loc).map(Some),
            None => Ok(None),
        }
    }

    /// The location of the collection under a key, for commands that look at several at once.
    pub fn find_collection<C: Collection>(
        &mut self,
        db: usize,
        key: &[u8],
    ) -> Result<Option<Loc>, WrongType> {
        match self.find(db, key) {
            Some(loc) if self.is_left::<C>(db, loc) => self.collection::<C>(db, loc).map(|_| Some(loc)),
            _ => Ok(None),
        }
    }

    /// Removes members whose time has come from the collection at a location, if it is of this type; false if that
    /// were all and the key is gone.
    #[inline]
    pub fn is_left<C: Collection>(&mut self, db: usize, loc: Loc) -> bool {
        let Some((class, event)) = C::MEMBERS_EXPIRE else { return true };
        let Value::Object(object) = self.value(db, loc) else { return true };
        let due = C::of(object).and_then(C::next_expiry).is_some_and(|at| at <= self.now);
        !due || !self.active_expire || self.keeps_expired || self.expire_members::<C>(db, loc, class, event)
    }

    #[cold]
    fn expire_members<C: Collection>(
        &mut self,
        db: usize,
        loc: Loc,
        class: Class,
        event: &'static str,
    ) -> bool {
        let (key, now) = (self.table(db).key(loc).to_vec(), self.now);
        let edit = self.edit_at(db, loc, |collection: &mut C| collection.expire_members(now));
        let Ok(Edit { value, gone }) = edit else { return true };
        if value > 0 {
            self.changed(db, &key, class, event);
        }
        if gone {
            self.changed(db, &key, Class::Generic, "del");
        }
        !gone
    }

    /// Changes the collection under a key; None if there is none.
    pub fn edit<C: Collection, R>(
        &mut self,
        db: usize,
        key: &[u8],
        change: impl FnOnce(&mut C) -> R,
    ) -> Result<Option<Edit<R>>, WrongType> {
        match self.find(db, key) {
            Some(loc) if self.is_left::<C>(db, loc) => self.edit_at(db, loc, change).map(Some),
            _ => Ok(None),
        }
    }

    /// Changes the collection at a location, for commands that must look at it first.
    pub fn edit_at<C: Collection, R>(
        &mut self,
        db: usize,
        loc: Loc,
        change: impl FnOnce(&mut C) -> R,
    ) -> Result<Edit<R>, WrongType> {
        if !self.leaves_heat {
            self.table_mut(db).touch(loc);
        }
        let edited = self.table_mut(db).edit_collection(loc, |collection: &mut C| {
            let value = change(collection);
            Edit { value, gone: collection.is_gone() }
        });
        let edit = edited.ok_or(WrongType)?;
        if edit.gone {
            self.remove_at(db, loc);
        }
        Ok(edit)
    }

    /// Changes the collection under a key, or a new one if there is none. A new one that stays empty is not stored.
    pub fn edit_or_new<C: Collection, R>(
        &mut self,
        db: usize,
        key: &[u8],
        change: impl FnOnce(&mut C) -> R,
    ) -> Result<Edit<R>, WrongType> {
        if let Some(loc) = self.find(db, key)
            && self.is_left::<C>(db, loc)
        {
            return self.edit_at(db, loc, change);
        }
        let mut collection = C::begin(self.hash_seed());
        let value = change(&mut collection);
        let gone = collection.is_gone();
        if !gone {
            self.set_object(db, key, collection.wrap(), Expiry::Never);
        }
        Ok(Edit { value, gone })
    }

    /// Takes the collection at a location out of its key to be changed in steps. An empty one stands in its place, which
    /// nobody may look at before [`Keyspace::give_back`]: the caller has the key locked.
    pub fn lend<C: Collection>(&mut self, db: usize, loc: Loc) -> Result<C, WrongType> {
        if !self.leaves_heat {
            self.table_mut(db).touch(loc);
        }
        let stand_in = C::begin(self.hash_seed());
        let lent = self
            .table_mut(db)
            .edit_collection(loc, |collection: &mut C| std::mem::replace(collection, stand_in));
        lent.ok_or(WrongType)
    }

    /// Puts a collection that was lent back under its key, which goes if nothing is left in it. None if the key has
    /// gone meanwhile, as expiry and eviction take what is lent, too: then the collection goes with it.
    pub fn give_back<C: Collection>(&mut self, db: usize, key: &[u8], lent: C) -> Option<Edit<()>> {
        let Some(loc) = self.find(db, key) else {
            self.discard(lent.wrap());
            return None;
        };
        let edit = self.edit_at(db, loc, |stand_in: &mut C| *stand_in = lent);
        Some(edit.expect("a key that is locked holds what it held"))
    }

    /// Stores a collection in place of whatever the key held, without expiry; an empty one removes the key.
    pub fn store<C: Collection>(&mut self, db: usize, key: &[u8], collection: C) {
        if collection.is_gone() {
            self.remove(db, key);
        } else {
            self.set_object(db, key, collection.wrap(), Expiry::Never);
        }
    }
}
