//! The objects of a service: where values live, which of them changed, and the root over all.
//!
//! ```text
//!   Mutex<T> RwLock<T>   Home, one Cell      leaf "total"
//!   Table<K, V>          Home, Cell per row  leaf "accounts[7]"
//!                          |
//!   with_mut ──> Cell ──> dirty list of its Home ──> dirty list of the registry ──(Mark)──> leaves of the tree
//! ```
//! leaf = H(kind, name, row key, canonical bytes). Only what was written since the last Mark is encoded again.
//!
//! Invariant: a cell is dirty exactly while it stands in its home's dirty list, and a home whose list is not empty
//! stands in the registry's.
//!
//! Invariant: a row whose cell somebody holds stays in the map until nobody does, so that two holders of one key one
//! after the other always meet the same cell.

use crate::keyed::HashKey;
use crate::latch::{Latch, ReadWriteLatch};
use crate::tree::Tree;
use crate::value::{Input, Key, Value};
use crate::witness;
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use unisono_scheduler::LockId;
use unisono_types::borsh::{self, BorshSerialize};
use unisono_types::{ClusterId, Digest};

/// Latches over a table's rows: enough that two workers seldom meet at one.
const ROW_SHARDS: usize = 16;

/// Where a service's objects are made and named, once, when it starts.
pub struct Objects {
    key: HashKey,
    names: BTreeSet<String>,
    objects: Vec<Arc<dyn Object>>,
    dirty: Arc<Latch<Vec<u32>>>,
}

impl Objects {
    pub(crate) fn new(cluster: ClusterId) -> Self {
        Self { key: HashKey::of(cluster), names: BTreeSet::new(), objects: Vec::new(), dirty: Arc::default() }
    }

    /// The path of the part `field` of the state called `name`.
    #[must_use]
    pub fn path(name: &str, field: &str) -> String {
        if name.is_empty() { field.to_owned() } else { format!("{name}.{field}") }
    }

    /// Makes an object.
    ///
    /// # Panics
    /// When two objects would share a name: a mistake in a hand-written `State`, found when the service starts.
    pub(crate) fn register<T: Value>(&mut self, name: &str, kind: Kind, label: Label) -> Arc<Home<T>> {
        let name = if name.is_empty() { "state" } else { name }.to_owned();
        self.claim(&name);
        let object = u32::try_from(self.objects.len()).expect("fewer than 2^32 objects");
        let home = Arc::new(Home {
            object,
            key: self.key,
            name,
            kind,
            label,
            rows: std::array::from_fn(|_| Latch::default()),
            dirty: Latch::default(),
            registry: Arc::clone(&self.dirty),
        });
        self.objects.push(home.clone());
        home
    }

    /// Row `k` of table `t` is named `t[k]`, so no object may be called that beside a `t`.
    fn claim(&mut self, name: &str) {
        let within = name.match_indices('[').any(|(at, _)| self.names.contains(&name[..at]));
        let open = format!("{name}[");
        let around = self.names.range(open.clone()..).next().is_some_and(|other| other.starts_with(&open));
        assert!(!within && !around && self.names.insert(name.to_owned()), "two shared objects are called {name}");
    }

    pub(crate) fn finish(self) -> Registry {
        Registry { objects: self.objects, dirty: self.dirty, tree: Tree::default() }
    }
}

/// All objects of a running service, and their tree as of the last Mark.
pub(crate) struct Registry {
    objects: Vec<Arc<dyn Object>>,
    dirty: Arc<Latch<Vec<u32>>>,
    tree: Tree,
}

impl Registry {
    /// Brings the tree up to date. Called while no closure runs.
    pub(crate) fn root(&mut self) -> Digest {
        let dirty = std::mem::take(&mut *self.dirty.lock());
        for object in dirty {
            self.objects[object as usize].refresh(&mut self.tree);
        }
        self.tree.root()
    }

    pub(crate) const fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Locks as people know them: the object's path, and the row's key if the row was ever written. One walk through the
    /// rows of every table among them.
    pub(crate) fn lock_names(&self, locks: &BTreeSet<LockId>) -> BTreeMap<LockId, String> {
        let mut names = BTreeMap::new();
        let mut rest = locks.iter().copied().peekable();
        while let Some(lock) = rest.next() {
            let mut wanted = BTreeSet::from([lock.0]);
            while let Some(next) = rest.next_if(|next| object_of(*next) == object_of(lock)) {
                wanted.insert(next.0);
            }
            if let Some(object) = self.objects.get(object_of(lock) as usize) {
                object.lock_names(&wanted, &mut names);
            }
        }
        names
    }
}

/// Which object a lock belongs to.
const fn object_of(lock: LockId) -> u32 {
    (lock.0 >> 96) as u32
}

/// An object as the registry sees it.
trait Object: Send + Sync {
    /// Writes what changed into the tree.
    fn refresh(&self, tree: &mut Tree);

    /// Names these locks of its.
    fn lock_names(&self, wanted: &BTreeSet<u128>, names: &mut BTreeMap<LockId, String>);
}

/// What kind of object; part of every leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Mutex,
    RwLock,
    Table,
}

impl Kind {
    const fn tag(self) -> &'static [u8] {
        match self {
            Self::Mutex => b"mutex",
            Self::RwLock => b"read-write lock",
            Self::Table => b"table",
        }
    }
}

/// Turns a row's canonical key into what people read.
pub(crate) type Label = fn(&[u8]) -> String;

/// Cells by canonical key. The order of a hash map never shows: nothing walks through it but to find names for people.
type Rows<T> = HashMap<Box<[u8]>, Arc<Cell<T>>>;

/// One object: its name, its rows, and which of them changed.
pub(crate) struct Home<T> {
    object: u32,
    key: HashKey,
    name: String,
    kind: Kind,
    label: Label,
    rows: [Latch<Rows<T>>; ROW_SHARDS],
    dirty: Latch<Vec<Arc<Cell<T>>>>,
    registry: Arc<Latch<Vec<u32>>>,
}

/// One value under one lock.
pub(crate) struct Cell<T> {
    /// What a row is found by; a whole object has none.
    row: Option<Row>,
    state: ReadWriteLatch<State<T>>,
}

struct Row {
    key: Box<[u8]>,
    shard: usize,
}

struct State<T> {
    /// None: a row that does not exist, a whole object that still has its default.
    value: Option<T>,
    dirty: bool,
    /// Rows only: it stands in the map.
    kept: bool,
}

/// A row key, encoded and hashed once.
pub(crate) struct RowKey {
    bytes: Vec<u8>,
    hash: u128,
}

impl<T: Value> Home<T> {
    /// The only cell of a whole object. It has a leaf from the beginning.
    pub(crate) fn whole(self: &Arc<Self>) -> Arc<Cell<T>> {
        let state = State { value: None, dirty: true, kept: false };
        let cell = Arc::new(Cell { row: None, state: ReadWriteLatch::new(state) });
        self.changed(&cell);
        cell
    }

    pub(crate) fn row_key<K: BorshSerialize>(&self, key: &K) -> RowKey {
        let bytes = unisono_types::encode(key);
        RowKey { hash: self.key.hash(&bytes), bytes }
    }

    /// The lock of a row.
    pub(crate) const fn row_lock_id(&self, key: &RowKey) -> LockId {
        self.lock_of_hash(key.hash)
    }

    /// The row's cell. Called by an owner of its lock; of a row that does not exist, a cell that joins the table with
    /// the first write.
    pub(crate) fn row(&self, key: RowKey) -> Arc<Cell<T>> {
        let shard = (key.hash % ROW_SHARDS as u128) as usize;
        if let Some(cell) = self.rows[shard].lock().get(key.bytes.as_slice()) {
            return Arc::clone(cell);
        }
        let row = Row { key: key.bytes.into_boxed_slice(), shard };
        let state = State { value: None, dirty: false, kept: false };
        Arc::new(Cell { row: Some(row), state: ReadWriteLatch::new(state) })
    }

    /// The cell that stands for the same row now. Called by who owns its lock again: a cell that had not joined the table
    /// may have been overtaken by another meanwhile.
    pub(crate) fn current(&self, cell: &Arc<Cell<T>>) -> Arc<Cell<T>> {
        let joined = cell.row.as_ref().and_then(|row| self.rows[row.shard].lock().get(&row.key).cloned());
        joined.unwrap_or_else(|| Arc::clone(cell))
    }

    fn changed(&self, cell: &Arc<Cell<T>>) {
        let mut dirty = self.dirty.lock();
        if dirty.is_empty() {
            self.registry.lock().push(self.object);
        }
        dirty.push(Arc::clone(cell));
    }

    /// Puts the cell where its key is found and its change is seen.
    fn touch(&self, cell: &Arc<Cell<T>>, state: &mut State<T>) {
        if let (Some(row), false) = (&cell.row, state.kept) {
            state.kept = true;
            self.rows[row.shard].lock().insert(row.key.clone(), Arc::clone(cell));
        }
        if !state.dirty {
            state.dirty = true;
            self.changed(cell);
        }
    }

    fn digest(&self, row: &[u8], value: Option<&T>) -> Digest {
        let encoded = match value {
            Some(value) => encoded(value),
            None => catch_unwind(T::default).ok().as_ref().and_then(encoded),
        };
        match encoded {
            Some(bytes) => {
                Digest::of("unisono object", &[self.kind.tag(), self.name.as_bytes(), row, b"value", &bytes])
            }
            // A value that refuses to be encoded (a NaN, say) refuses on every replica.
            None => Digest::of("unisono object", &[self.kind.tag(), self.name.as_bytes(), row, b"not encodable"]),
        }
    }

    /// A deleted row leaves the map, unless a guard still holds it: then it is looked at again at the next Mark.
    fn drop_row(&self, cell: &Arc<Cell<T>>, row: &Row, state: &mut State<T>) {
        let mut rows = self.rows[row.shard].lock();
        if Arc::strong_count(cell) > 2 {
            state.dirty = true;
            self.changed(cell);
        } else {
            rows.remove(&row.key);
            state.kept = false;
        }
    }
}

impl<T> Home<T> {
    /// The lock of a whole object.
    pub(crate) const fn lock_id(&self) -> LockId {
        LockId((self.object as u128) << 96)
    }

    /// The lock of the row whose key hashes to this.
    const fn lock_of_hash(&self, hash: u128) -> LockId {
        LockId(self.lock_id().0 | (hash >> 32))
    }
}

/// The canonical bytes, if the value has any.
fn encoded<T: Value>(value: &T) -> Option<Vec<u8>> {
    catch_unwind(AssertUnwindSafe(|| borsh::to_vec(value))).ok()?.ok()
}

impl<T: Value> Object for Home<T> {
    fn refresh(&self, tree: &mut Tree) {
        let dirty = std::mem::take(&mut *self.dirty.lock());
        for cell in dirty {
            let mut state = cell.state.write();
            state.dirty = false;
            match &cell.row {
                None => tree.set(&self.name, self.digest(&[], state.value.as_ref())),
                Some(row) => {
                    let name = format!("{}[{}]", self.name, (self.label)(&row.key));
                    if state.value.is_some() {
                        tree.set(&name, self.digest(&row.key, state.value.as_ref()));
                    } else {
                        tree.remove(&name);
                        self.drop_row(&cell, row, &mut state);
                    }
                }
            }
        }
    }

    fn lock_names(&self, wanted: &BTreeSet<u128>, names: &mut BTreeMap<LockId, String>) {
        if self.kind != Kind::Table {
            names.insert(self.lock_id(), self.name.clone());
            return;
        }
        for lock in wanted {
            names.insert(LockId(*lock), format!("{}[#{:024x}]", self.name, lock & ((1 << 96) - 1)));
        }
        for rows in &self.rows {
            for key in rows.lock().keys() {
                let lock = self.lock_of_hash(self.key.hash(key));
                if wanted.contains(&lock.0) {
                    names.insert(lock, format!("{}[{}]", self.name, (self.label)(key)));
                }
            }
        }
    }
}

impl<T: Value> Cell<T> {
    pub(crate) fn with<I: Input, R>(&self, input: I, f: fn(&T, I) -> R) -> R {
        match &self.state.read().value {
            Some(value) => f(value, input),
            None => f(&T::default(), input),
        }
    }

    pub(crate) fn with_mut<I: Input, R>(self: &Arc<Self>, home: &Home<T>, input: I, f: fn(&mut T, I) -> R) -> R {
        let mut state = self.state.write();
        home.touch(self, &mut state); // before the closure: what it wrote stays even if it panics
        f(state.value.get_or_insert_with(T::default), input)
    }

    /// For comparisons within one process.
    pub(crate) fn hash(&self) -> u64 {
        let bytes = match &self.state.read().value {
            Some(value) => encoded(value).map(|bytes| [&[1], bytes.as_slice()].concat()),
            None => Some(vec![0]),
        };
        bytes.map_or(0, |bytes| witness::hash(&bytes))
    }

    pub(crate) fn exists(&self) -> bool {
        self.state.read().value.is_some()
    }

    pub(crate) fn remove(self: &Arc<Self>, home: &Home<T>) -> bool {
        let mut state = self.state.write();
        if state.value.is_none() {
            return false;
        }
        home.touch(self, &mut state);
        state.value = None;
        true
    }
}

/// The label of keys of type `K`. Different keys have different labels: numbers in decimal, text and bytes escaped,
/// everything else by its escaped canonical bytes.
pub(crate) fn label<K: Key>(bytes: &[u8]) -> String {
    let Ok(key) = unisono_types::decode::<K>(bytes, bytes.len()) else {
        return bytes.escape_ascii().to_string();
    };
    let key = &key as &dyn Any;
    macro_rules! decimal {
        ($($number:ty),*) => { $(if let Some(number) = key.downcast_ref::<$number>() {
            return number.to_string();
        })* };
    }
    decimal!(u8, u16, u32, u64, u128, i8, i16, i32, i64, i128);
    if let Some(text) = key.downcast_ref::<String>() {
        return text.as_bytes().escape_ascii().to_string();
    }
    if let Some(raw) = key.downcast_ref::<Vec<u8>>() {
        return raw.escape_ascii().to_string();
    }
    bytes.escape_ascii().to_string()
}

/// The label of objects without rows.
pub(crate) fn no_label(_: &[u8]) -> String {
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::State as _;
    use crate::{Mutex, Table};

    fn objects() -> Objects {
        Objects::new(ClusterId::default())
    }

    fn put(value: &mut u64, new: u64) {
        *value = new;
    }

    #[test]
    fn names_say_which_object_and_which_row() {
        let mut objects = objects();
        let accounts: Table<u64, u64> = Table::create(&mut objects, "accounts");
        let texts: Table<String, u64> = Table::create(&mut objects, "texts");
        let pairs: Table<(u8, u8), u64> = Table::create(&mut objects, "pairs");
        let _total: Mutex<u64> = Mutex::create(&mut objects, "total");
        let _shards: [Mutex<u64>; 2] = <[Mutex<u64>; 2]>::create(&mut objects, "shards");
        for (home, key) in [
            (accounts.home(), accounts.home().row_key(&7u64)),
            (texts.home(), texts.home().row_key(&"a\n]")),
            (pairs.home(), pairs.home().row_key(&(1u8, 2u8))),
        ] {
            home.row(key).with_mut(home, 1, put);
        }
        let mut registry = objects.finish();
        registry.root();
        let mut names: Vec<_> = registry.tree().page(None, 99).into_iter().map(|(name, _)| name).collect();
        names.sort();
        let expected = ["accounts[7]", "pairs[\\x01\\x02]", "shards[0]", "shards[1]", "texts[a\\n]]", "total"];
        assert_eq!(names, expected);
    }

    #[test]
    #[should_panic(expected = "two shared objects are called t[1]")]
    fn a_name_that_could_be_a_row_of_a_table_is_refused() {
        let mut objects = objects();
        let _table: Table<u64, u64> = Table::create(&mut objects, "t");
        let _other: Mutex<u64> = Mutex::create(&mut objects, "t[1]");
    }

    #[test]
    #[should_panic(expected = "two shared objects are called t")]
    fn the_same_in_the_other_order() {
        let mut objects = objects();
        let _other: [Mutex<u64>; 2] = <[Mutex<u64>; 2]>::create(&mut objects, "t");
        let _table: Table<u64, u64> = Table::create(&mut objects, "t");
    }

    #[test]
    fn a_row_written_and_deleted_leaves_no_trace_but_one_that_is_read_only_never_had_any() {
        let mut objects = objects();
        let home: Arc<Home<u64>> = objects.register("t", Kind::Table, label::<u64>);
        let mut registry = objects.finish();
        let empty = registry.root();

        assert_eq!(home.row(home.row_key(&1u64)).with((), |value, ()| *value), 0);
        assert_eq!(registry.root(), empty);

        home.row(home.row_key(&1u64)).with_mut(&home, 5, put);
        assert!(home.row(home.row_key(&1u64)).exists());
        assert_ne!(registry.root(), empty);

        assert!(home.row(home.row_key(&1u64)).remove(&home));
        assert!(!home.row(home.row_key(&1u64)).remove(&home));
        assert_eq!(registry.root(), empty);
        assert!(home.rows.iter().all(|shard| shard.lock().is_empty()));
    }

    #[test]
    fn a_deleted_row_that_is_still_held_over_a_mark_is_the_same_row_when_written_again() {
        let mut objects = objects();
        let home: Arc<Home<u64>> = objects.register("t", Kind::Table, label::<u64>);
        let mut registry = objects.finish();
        let held = home.row(home.row_key(&1u64));
        held.with_mut(&home, 5, put);
        let five = registry.root();
        held.remove(&home);
        assert_eq!(registry.root(), Digest::ZERO);
        held.with_mut(&home, 5, put);
        assert_eq!(home.row(home.row_key(&1u64)).with((), |value, ()| *value), 5, "found by its key");
        assert_eq!(registry.root(), five);
        held.remove(&home);
        drop(held);
        registry.root();
        assert!(home.rows.iter().all(|shard| shard.lock().is_empty()), "nobody holds it: gone");
    }

    #[test]
    fn only_what_changed_is_encoded_again() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static ENCODED: AtomicUsize = AtomicUsize::new(0);
        #[derive(Clone, Default, unisono_types::borsh::BorshDeserialize)]
        #[borsh(crate = "unisono_types::borsh")]
        struct Counted(u64);
        impl BorshSerialize for Counted {
            fn serialize<W: borsh::io::Write>(&self, writer: &mut W) -> borsh::io::Result<()> {
                ENCODED.fetch_add(1, Ordering::Relaxed);
                self.0.serialize(writer)
            }
        }
        let mut objects = objects();
        let home: Arc<Home<Counted>> = objects.register("t", Kind::Table, label::<u64>);
        let mut registry = objects.finish();
        let write = |row: u64| home.row(home.row_key(&row)).with_mut(&home, row, |value, new| value.0 += new + 1);
        (0..1000).for_each(write);
        registry.root();
        assert_eq!(ENCODED.swap(0, Ordering::Relaxed), 1000);
        [3, 3, 500].into_iter().for_each(write);
        registry.root();
        assert_eq!(ENCODED.swap(0, Ordering::Relaxed), 2);
        registry.root();
        assert_eq!(ENCODED.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_value_without_bytes_has_a_digest_all_the_same() {
        let mut objects = objects();
        let home: Arc<Home<f64>> = objects.register("f", Kind::Mutex, no_label);
        let cell = home.whole();
        let mut registry = objects.finish();
        let zero = registry.root();
        cell.with_mut(&home, f64::NAN, |value, new| *value = new);
        assert_ne!(registry.root(), zero);
        cell.with_mut(&home, 0.0, |value, new| *value = new);
        assert_eq!(registry.root(), zero);
    }
}
