//! What is in an instance's directory, against its budget: numbers only. Who calls it knows files, and tells what became of
//! them; here nothing is opened, looked at or waited for.
//!
//! A file is charged with its apparent size (a hole counts as what it could become), once however many names it has; each
//! name is a file of its own, and so is a directory. What has no name any more is charged until its last handle is closed.

use crate::engine::Gauges;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Bytes and files: of a directory, or that it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Apparent sizes of files, and of the targets of symbolic links.
    pub bytes: u64,
    /// Names below the directory: of files, links and directories.
    pub files: u64,
}

/// Tells one file from another, whatever it is called.
pub(super) type Key = u64;

/// Something that the budget has no room for: what there would have been with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum OverBudget {
    Bytes(u64),
    Files(u64),
    /// Bytes for which there was no room on the disk.
    Room(u64),
}

impl fmt::Display for OverBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OverBudget::Bytes(wanted) => write!(f, "{wanted} bytes are more than the disk budget allows"),
            OverBudget::Files(wanted) => write!(f, "{wanted} files are more than the disk budget allows"),
            OverBudget::Room(wanted) => write!(f, "there is no room on the disk for {wanted} bytes more"),
        }
    }
}

impl std::error::Error for OverBudget {}

/// The account of one run.
#[derive(Debug)]
pub(super) struct Account {
    used: Usage,
    max: Usage,
    open: HashMap<Key, Open>,
    refused: Option<OverBudget>,
    gauges: Option<Arc<Gauges>>,
}

/// A file that is open.
#[derive(Debug)]
struct Open {
    /// What it is charged with: its size, or the size that it may be growing to.
    bytes: u64,
    handles: usize,
    /// Operations under way that may change its size.
    changing: usize,
}

impl Account {
    /// An account that begins with what is there, which may be more than `max`: then nothing grows.
    pub(super) fn new(used: Usage, max: Usage) -> Account {
        Account { used, max, open: HashMap::new(), refused: None, gauges: None }
    }

    /// Shows there what is used, now and from now on.
    pub(super) fn show(&mut self, gauges: Arc<Gauges>) {
        self.gauges = Some(gauges);
        self.set(self.used);
    }

    fn set(&mut self, used: Usage) {
        self.used = used;
        if let Some(gauges) = &self.gauges {
            gauges.set_disk(used);
        }
    }

    pub(super) fn max(&self) -> Usage {
        self.max
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> Usage {
        self.used
    }

    /// What was last refused.
    pub(super) fn refused(&self) -> Option<OverBudget> {
        self.refused
    }

    /// Charges what is about to be made. All or nothing.
    ///
    /// # Errors
    ///
    /// [`OverBudget`], which is remembered.
    pub(super) fn take(&mut self, what: Usage) -> Result<(), OverBudget> {
        let bytes = self.used.bytes.saturating_add(what.bytes);
        let files = self.used.files.saturating_add(what.files);
        let over = if what.bytes > 0 && bytes > self.max.bytes {
            OverBudget::Bytes(bytes)
        } else if what.files > 0 && files > self.max.files {
            OverBudget::Files(files)
        } else {
            self.set(Usage { bytes, files });
            return Ok(());
        };
        self.refused = Some(over);
        Err(over)
    }

    /// Remembers that there was no room on the disk.
    pub(super) fn no_room(&mut self, bytes: u64) -> OverBudget {
        *self.refused.insert(OverBudget::Room(bytes))
    }

    /// Gives back what is gone, or was not made after all. Others may change the directory too, so there may be less.
    pub(super) fn give_back(&mut self, what: Usage) {
        let Usage { bytes, files } = self.used;
        self.set(Usage { bytes: bytes.saturating_sub(what.bytes), files: files.saturating_sub(what.files) });
    }

    /// One more handle on a file of `bytes`, which are charged already.
    pub(super) fn opened(&mut self, key: Key, bytes: u64) {
        let open = self.open.entry(key).or_insert(Open { bytes, handles: 0, changing: 0 });
        open.handles += 1;
    }

    /// One handle less. `nameless`: the file has no name any more; with its last handle it is gone.
    pub(super) fn closed(&mut self, key: Key, nameless: bool) {
        let Some(open) = self.open.get_mut(&key) else { return };
        open.handles -= 1;
        if open.handles == 0 {
            let bytes = open.bytes;
            self.open.remove(&key);
            if nameless {
                self.give_back(Usage { bytes, files: 1 });
            }
        }
    }

    /// Whether there is a handle on it, and on anything at all if no key is given.
    pub(super) fn is_open(&self, key: Option<Key>) -> bool {
        key.map_or(!self.open.is_empty(), |key| self.open.contains_key(&key))
    }

    /// Charges an open file with the size that it is about to have, if that is larger. [`Account::changed`] has to follow.
    ///
    /// # Errors
    ///
    /// [`OverBudget`], which is remembered; then nothing follows.
    pub(super) fn change(&mut self, key: Key, size: u64) -> Result<(), OverBudget> {
        let before = self.open.get(&key).map_or(0, |open| open.bytes);
        self.take(Usage { bytes: size.saturating_sub(before), files: 0 })?;
        if let Some(open) = self.open.get_mut(&key) {
            open.bytes = open.bytes.max(size);
            open.changing += 1;
        }
        Ok(())
    }

    /// [`Account::change`] for `bytes` behind the end.
    ///
    /// # Errors
    ///
    /// As [`Account::change`].
    pub(super) fn append(&mut self, key: Key, bytes: u64) -> Result<(), OverBudget> {
        let before = self.open.get(&key).map_or(0, |open| open.bytes);
        self.change(key, before.saturating_add(bytes))
    }

    /// A change is over, and nobody can tell what came of it: what was charged stays charged.
    pub(super) fn unknown(&mut self, key: Key) {
        if let Some(open) = self.open.get_mut(&key) {
            open.changing -= 1;
        }
    }

    /// A change is over, whatever came of it, and the file has this size. While others are under way it may still grow to
    /// what was charged for them.
    pub(super) fn changed(&mut self, key: Key, size: u64) {
        let Some(open) = self.open.get_mut(&key) else { return };
        open.changing -= 1;
        if open.changing > 0 {
            return;
        }
        let before = std::mem::replace(&mut open.bytes, size);
        self.set(Usage { bytes: self.used.bytes.saturating_sub(before).saturating_add(size), ..self.used });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(bytes: u64) -> Usage {
        Usage { bytes, files: 0 }
    }

    const FILE: Usage = Usage { bytes: 0, files: 1 };

    fn account(bytes: u64, files: u64) -> Account {
        Account::new(Usage::default(), Usage { bytes, files })
    }

    #[test]
    fn the_last_byte_and_the_last_file_fit_and_one_more_does_not() {
        let mut a = account(10, 2);
        a.take(Usage { bytes: 4, files: 1 }).unwrap();
        a.take(Usage { bytes: 6, files: 1 }).unwrap();
        assert_eq!(a.refused(), None);
        assert_eq!(a.take(bytes(1)), Err(OverBudget::Bytes(11)));
        assert_eq!(a.take(FILE), Err(OverBudget::Files(3)));
        assert_eq!(a.refused(), Some(OverBudget::Files(3)));
        a.give_back(Usage { bytes: 1, files: 1 });
        a.take(Usage { bytes: 1, files: 1 }).unwrap();
        assert_eq!(a.take(bytes(u64::MAX)), Err(OverBudget::Bytes(u64::MAX)));
        assert_eq!(a.used, Usage { bytes: 10, files: 2 });
    }

    #[test]
    fn a_directory_that_is_over_its_budget_already_does_not_grow_and_may_shrink() {
        let mut a = Account::new(Usage { bytes: 20, files: 5 }, Usage { bytes: 10, files: 2 });
        a.opened(1, 20);
        assert!(a.change(1, 21).is_err());
        a.change(1, 20).unwrap();
        a.changed(1, 20);
        a.change(1, 3).unwrap();
        a.changed(1, 3);
        assert!(a.take(FILE).is_err());
        a.change(1, 10).unwrap();
    }

    #[test]
    fn what_did_not_happen_is_given_back_when_the_last_change_is_over() {
        let mut a = account(100, 1);
        a.take(FILE).unwrap();
        a.opened(1, 0);
        a.change(1, 60).unwrap();
        a.append(1, 40).unwrap();
        assert_eq!(a.append(1, 1), Err(OverBudget::Bytes(101)));
        a.changed(1, 0);
        assert_eq!(a.used.bytes, 100, "the other one may still grow it");
        a.changed(1, 40);
        assert_eq!(a.used.bytes, 40);
    }

    #[test]
    fn a_file_without_a_name_is_charged_until_its_last_handle_is_closed() {
        let mut a = account(100, 1);
        a.take(Usage { bytes: 50, files: 1 }).unwrap();
        a.opened(1, 50);
        a.opened(1, 50);
        assert!(a.is_open(Some(1)) && a.is_open(None) && !a.is_open(Some(2)));
        a.closed(1, true);
        assert_eq!(a.used, Usage { bytes: 50, files: 1 });
        a.closed(1, true);
        assert_eq!(a.used, Usage::default());
        assert!(!a.is_open(None));
    }

    /// A file system of numbers: names lead to files, handles keep them.
    #[derive(Debug, Default)]
    struct Naive {
        names: Vec<(u8, Key)>,
        sizes: HashMap<Key, u64>,
        handles: Vec<Key>,
        next: Key,
    }

    impl Naive {
        fn links(&self, key: Key) -> usize {
            self.names.iter().filter(|(_, k)| *k == key).count()
        }

        /// Computed from nothing: files that have a name or a handle.
        fn usage(&self) -> Usage {
            let kept = |key: &&Key| self.links(**key) > 0 || self.handles.contains(key);
            let orphans = self.sizes.keys().filter(kept).filter(|key| self.links(**key) == 0).count();
            let bytes = self.sizes.keys().filter(kept).map(|key| self.sizes[key]).sum();
            Usage { bytes, files: u64::try_from(self.names.len() + orphans).unwrap() }
        }
    }

    #[derive(Debug, Clone)]
    enum Op {
        Create(u8),
        Link(u8, u8),
        Unlink(u8),
        Open(u8),
        Close(u8),
        Resize { handle: u8, size: u64, fails: bool },
        Append { handle: u8, bytes: u64, done: u64 },
    }

    fn op() -> impl Strategy<Value = Op> {
        let name = 0..6u8;
        prop_oneof![
            name.clone().prop_map(Op::Create),
            (name.clone(), name.clone()).prop_map(|(a, b)| Op::Link(a, b)),
            name.clone().prop_map(Op::Unlink),
            name.clone().prop_map(Op::Open),
            name.clone().prop_map(Op::Close),
            (0..4u8, 0..60u64, any::<bool>()).prop_map(|(handle, size, fails)| Op::Resize { handle, size, fails }),
            (0..4u8, 0..40u64, 0..40u64).prop_map(|(handle, bytes, done)| Op::Append { handle, bytes, done }),
        ]
    }

    const MAX: Usage = Usage { bytes: 100, files: 4 };

    /// One operation, as the callers of [`Account`] do it.
    fn step(a: &mut Account, naive: &mut Naive, op: Op) {
        let named = |naive: &Naive, name: u8| naive.names.iter().position(|(n, _)| *n == name);
        match op {
            Op::Create(name) if named(naive, name).is_none() => {
                let fits = naive.usage().files < MAX.files;
                assert_eq!(a.take(FILE).is_ok(), fits);
                if fits {
                    naive.sizes.insert(naive.next, 0);
                    naive.names.push((name, naive.next));
                    naive.next += 1;
                }
            }
            Op::Link(from, to) if named(naive, to).is_none() => {
                let Some(from) = named(naive, from) else { return };
                if a.take(FILE).is_ok() {
                    naive.names.push((to, naive.names[from].1));
                }
            }
            Op::Unlink(name) => {
                let Some(at) = named(naive, name) else { return };
                let (_, key) = naive.names.remove(at);
                if naive.links(key) > 0 {
                    a.give_back(FILE);
                } else if !a.is_open(Some(key)) {
                    a.give_back(Usage { bytes: naive.sizes[&key], files: 1 });
                }
            }
            Op::Open(name) if naive.handles.len() < 4 => {
                let Some(at) = named(naive, name) else { return };
                let key = naive.names[at].1;
                a.opened(key, naive.sizes[&key]);
                naive.handles.push(key);
            }
            Op::Close(handle) if usize::from(handle) < naive.handles.len() => {
                let key = naive.handles.remove(handle.into());
                a.closed(key, naive.links(key) == 0);
            }
            Op::Resize { handle, size, fails } => {
                let Some(&key) = naive.handles.get(usize::from(handle)) else { return };
                if a.change(key, size).is_ok() {
                    if !fails {
                        naive.sizes.insert(key, size);
                    }
                    a.changed(key, naive.sizes[&key]);
                } else {
                    let growth = size - naive.sizes[&key];
                    assert!(naive.usage().bytes + growth > MAX.bytes, "it would have fitted");
                }
            }
            Op::Append { handle, bytes, done } => {
                let Some(&key) = naive.handles.get(usize::from(handle)) else { return };
                if a.append(key, bytes).is_ok() {
                    *naive.sizes.get_mut(&key).unwrap() += done.min(bytes);
                    a.changed(key, naive.sizes[&key]);
                }
            }
            _ => {}
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_count_of_everything_and_is_never_overrun(ops in prop::collection::vec(op(), 0..80)) {
            let (mut a, mut naive) = (Account::new(Usage::default(), MAX), Naive::default());
            let gauges = Arc::new(Gauges::default());
            a.show(Arc::clone(&gauges));
            for op in ops {
                step(&mut a, &mut naive, op.clone());
                prop_assert_eq!(a.used, naive.usage(), "after {:?}", op);
                prop_assert_eq!(gauges.disk(), Some(a.used));
                prop_assert!(a.used.bytes <= MAX.bytes && a.used.files <= MAX.files);
            }
        }
    }
}
