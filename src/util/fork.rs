//! What each process has for itself, also one that is made by `fork`: that has copies of our locks, but none of the threads
//! that held them at that moment.

use std::process;
use std::sync::OnceLock;

/// A value for each process, made when it is first asked for.
pub(crate) struct PerProcess<T: 'static> {
    make: fn() -> T,
    first: OnceLock<Box<Node<T>>>,
}

struct Node<T: 'static> {
    process: u32,
    value: T,
    /// Of the process that this one has made.
    next: OnceLock<Box<Node<T>>>,
}

impl<T> PerProcess<T> {
    pub(crate) const fn new(make: fn() -> T) -> Self {
        let first = OnceLock::new();
        Self { make, first }
    }

    pub(crate) fn get(&self) -> &T {
        let process = process::id();
        let mut place = &self.first;
        loop {
            let node = place.get_or_init(|| {
                Box::new(Node {
                    process,
                    value: (self.make)(),
                    next: OnceLock::new(),
                })
            });
            if node.process == process {
                return &node.value;
            }
            place = &node.next;
        }
    }
}
