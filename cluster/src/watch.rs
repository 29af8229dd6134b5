//! A value that can be waited for: tokio's `watch`.
//!
//! Tokio wakes the receivers of one value in a random order, which no seed sets. So the tests, the
//! model among them, have a channel with the same interface that wakes in a fixed order.

#[cfg(not(test))]
pub(crate) use tokio::sync::watch::{Receiver, Sender, channel};

#[cfg(test)]
pub(crate) use self::fixed::{Receiver, Sender, channel};

#[cfg(test)]
mod fixed {
    use std::ops::Deref;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

    use tokio::sync::Notify;

    #[derive(Debug)]
    struct Shared<T> {
        /// The value, and how often it has changed.
        value: RwLock<(T, u64)>,
        changed: Notify,
        senders: AtomicUsize,
    }

    impl<T> Shared<T> {
        fn read(&self) -> RwLockReadGuard<'_, (T, u64)> {
            self.value.read().unwrap_or_else(PoisonError::into_inner)
        }
    }

    /// A guard of the value. Two of them at once are allowed.
    #[derive(Debug)]
    pub(crate) struct Ref<'a, T>(RwLockReadGuard<'a, (T, u64)>);

    impl<T> Deref for Ref<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0.0
        }
    }

    /// No sender is left.
    #[derive(Debug)]
    pub(crate) struct Closed;

    #[derive(Debug)]
    pub(crate) struct Sender<T> {
        shared: Arc<Shared<T>>,
    }

    impl<T> Sender<T> {
        pub(crate) fn new(value: T) -> Self {
            Self {
                shared: Arc::new(Shared {
                    value: RwLock::new((value, 0)),
                    changed: Notify::new(),
                    senders: AtomicUsize::new(1),
                }),
            }
        }

        pub(crate) fn subscribe(&self) -> Receiver<T> {
            let seen = self.shared.read().1;
            Receiver {
                shared: Arc::clone(&self.shared),
                seen,
            }
        }

        pub(crate) fn borrow(&self) -> Ref<'_, T> {
            Ref(self.shared.read())
        }

        pub(crate) fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
            let value = &self.shared.value;
            let mut guard = value.write().unwrap_or_else(PoisonError::into_inner);
            let is_modified = change(&mut guard.0);
            guard.1 += u64::from(is_modified);
            drop(guard);
            if is_modified {
                self.shared.changed.notify_waiters();
            }
            is_modified
        }

        pub(crate) fn send_modify(&self, change: impl FnOnce(&mut T)) {
            self.send_if_modified(|value| {
                change(value);
                true
            });
        }

        pub(crate) fn send_replace(&self, value: T) -> T {
            let mut old = value;
            self.send_modify(|value| std::mem::swap(value, &mut old));
            old
        }
    }

    impl<T> Clone for Sender<T> {
        fn clone(&self) -> Self {
            // Ordering: as for the count of an `Arc`, which comes with it.
            self.shared.senders.fetch_add(1, Ordering::Relaxed);
            Self {
                shared: Arc::clone(&self.shared),
            }
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            // Ordering: a receiver that sees 0 sees the last value, too.
            if self.shared.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
                self.shared.changed.notify_waiters();
            }
        }
    }

    #[derive(Debug)]
    pub(crate) struct Receiver<T> {
        shared: Arc<Shared<T>>,
        seen: u64,
    }

    impl<T> Receiver<T> {
        pub(crate) fn borrow(&self) -> Ref<'_, T> {
            Ref(self.shared.read())
        }

        pub(crate) fn borrow_and_update(&mut self) -> Ref<'_, T> {
            let guard = self.shared.read();
            self.seen = guard.1;
            Ref(guard)
        }

        pub(crate) async fn changed(&mut self) -> Result<(), Closed> {
            loop {
                // It counts from here on, before the value is read.
                let changed = self.shared.changed.notified();
                let version = self.shared.read().1;
                if version != self.seen {
                    self.seen = version;
                    return Ok(());
                }
                if self.shared.senders.load(Ordering::Acquire) == 0 {
                    return Err(Closed);
                }
                changed.await;
            }
        }

        pub(crate) async fn wait_for(
            &mut self,
            mut condition: impl FnMut(&T) -> bool,
        ) -> Result<Ref<'_, T>, Closed> {
            loop {
                let is_met = {
                    let guard = self.shared.read();
                    self.seen = guard.1;
                    condition(&guard.0)
                };
                if is_met {
                    return Ok(Ref(self.shared.read()));
                }
                self.changed().await?;
            }
        }
    }

    impl<T> Clone for Receiver<T> {
        fn clone(&self) -> Self {
            Self {
                shared: Arc::clone(&self.shared),
                seen: self.seen,
            }
        }
    }

    pub(crate) fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
        let sender = Sender::new(value);
        let receiver = sender.subscribe();
        (sender, receiver)
    }
}
