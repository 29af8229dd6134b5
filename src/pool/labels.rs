//! A value for each label of a pool's jobs.

use std::ptr;
use std::sync::OnceLock;

/// The values, found by the text of their labels. Labels are added, and never removed: so readers
/// and writers need no lock. There may be any number of them.
///
/// It is a tree that is searched by the bits of the label's hash, two bits at each node. Nodes move
/// neither in the tree nor in memory.
#[derive(Debug)]
pub(crate) struct Labels<T> {
    root: Link<T>,
}

type Link<T> = OnceLock<Box<Node<T>>>;

#[derive(Debug)]
struct Node<T> {
    label: &'static str,
    value: T,
    children: [Link<T>; 4],
}

impl<T: Default> Labels<T> {
    /// Returns the value of a label, and makes it if it is not there.
    pub(crate) fn get(&self, label: &'static str) -> &T {
        self.get_hashed(label, hash(label))
    }

    fn get_hashed(&self, label: &'static str, hash: u64) -> &T {
        &self.node(label, hash).value
    }

    fn node(&self, label: &'static str, mut hash: u64) -> &Node<T> {
        let mut link = &self.root;
        loop {
            // Another thread may have put another label here meanwhile.
            let node = link.get_or_init(|| Node::new(label));
            if ptr::eq(node.label, label) || node.label == label {
                return node;
            }
            // After the last bit of the hash, the node is a list: of labels with the same hash.
            link = &node.children[(hash >> 62) as usize];
            hash <<= 2;
        }
    }
}

#[cfg(feature = "console")]
impl Labels<()> {
    /// Returns a reference to a label, which is smaller than the label. There is one for each text.
    pub(crate) fn intern(&self, label: &'static str) -> &&'static str {
        &self.node(label, hash(label)).label
    }
}

impl<T> Labels<T> {
    #[cfg(feature = "console")]
    pub(crate) const fn new() -> Self {
        Self {
            root: OnceLock::new(),
        }
    }

    /// Calls `f` with each label and its value, in no order.
    pub(crate) fn for_each(&self, mut f: impl FnMut(&'static str, &T)) {
        let mut links = vec![&self.root];
        while let Some(link) = links.pop() {
            if let Some(node) = link.get() {
                f(node.label, &node.value);
                links.extend(&node.children);
            }
        }
    }
}

impl<T> Default for Labels<T> {
    fn default() -> Self {
        Self {
            root: OnceLock::new(),
        }
    }
}

impl<T: Default> Node<T> {
    fn new(label: &'static str) -> Box<Self> {
        Box::new(Self {
            label,
            value: T::default(),
            children: Default::default(),
        })
    }
}

/// Returns a number of which the high bits differ most, since they are used first. Labels are
/// written by programmers, so nothing needs to hold against labels that are chosen to collide.
fn hash(label: &str) -> u64 {
    // An odd number near 2⁶⁴ divided by the golden ratio.
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| (hash.rotate_left(32) ^ word).wrapping_mul(MULTIPLIER);
    let words = label.as_bytes().chunks_exact(8);
    let append = |word: u64, byte: &u8| word << 8 | u64::from(*byte);
    let rest = words.remainder().iter().fold(label.len() as u64, append);
    mix(
        words.fold(0, |hash, word| mix(hash, word.iter().fold(0, append))),
        rest,
    )
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    use super::*;

    fn read(labels: &Labels<AtomicU64>) -> BTreeMap<&'static str, u64> {
        let mut values = BTreeMap::new();
        labels.for_each(|label, value| {
            let before = values.insert(label, value.load(Ordering::Relaxed));
            assert_eq!(before, None, "{label} is there twice");
        });
        values
    }

    fn leak(label: String) -> &'static str {
        Box::leak(label.into_boxed_str())
    }

    #[test]
    fn labels_of_the_same_text_have_the_same_value() {
        let labels = Labels::<AtomicU64>::default();
        for label in ["thumbnail", leak("thumbnail".to_owned()), "", "thumbnails"] {
            labels.get(label).fetch_add(1, Ordering::Relaxed);
        }
        let expected = [("", 1), ("thumbnail", 2), ("thumbnails", 1)];
        assert_eq!(read(&labels), BTreeMap::from(expected));
    }

    #[cfg(feature = "console")]
    #[test]
    fn labels_of_the_same_text_are_one_reference() {
        static LABELS: Labels<()> = Labels::new();
        let interned: &'static &'static str = LABELS.intern("thumbnail");
        assert_eq!(*interned, "thumbnail");
        let again = LABELS.intern(leak("thumbnail".to_owned()));
        assert!(ptr::eq(interned, again));
        assert_eq!(*LABELS.intern("other"), "other");
    }

    #[test]
    fn labels_of_the_same_hash_have_values_of_their_own() {
        let labels = Labels::<AtomicU64>::default();
        let names: Vec<_> = (0..100).map(|n| leak(format!("label {n}"))).collect();
        for (name, n) in names.iter().zip(0..) {
            labels.get_hashed(name, 7).store(n, Ordering::Relaxed);
        }
        for (name, n) in names.iter().zip(0..) {
            let value = labels.get_hashed(name, 7).load(Ordering::Relaxed);
            assert_eq!(value, n);
        }
    }

    #[test]
    fn many_similar_labels_are_found_in_a_few_steps() {
        let labels = Labels::<AtomicU64>::default();
        for n in 0..10_000 {
            let label = leak(format!("GET /items/{n}"));
            labels.get(label).store(n, Ordering::Relaxed);
        }
        assert_eq!(read(&labels).len(), 10_000);
        let mut nodes: Vec<_> = labels.root.get().into_iter().collect();
        let mut depth = 0;
        while !nodes.is_empty() {
            depth += 1;
            let children = nodes.iter().flat_map(|node| &node.children);
            nodes = children.filter_map(OnceLock::get).collect();
        }
        assert!(depth < 16, "{depth}");
    }

    #[test]
    fn threads_that_add_the_same_labels_share_their_values() {
        const THREADS: u64 = 4;
        let labels = Labels::<AtomicU64>::default();
        thread::scope(|scope| {
            for _ in 0..THREADS {
                let labels = &labels;
                scope.spawn(move || {
                    for n in 0..300 {
                        let label = leak(format!("{n}"));
                        labels.get(label).fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        let values = read(&labels);
        assert_eq!(values.len(), 300);
        assert!(values.values().all(|value| *value == THREADS));
    }
}
