//! User code that may panic and must not take the crate down with it: callbacks, wakers, destructors,
//! `tracing` subscribers.
//!
//! No function here may be called while one of the crate's locks is held.

use std::any::Any;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Returns the text of a panic payload, if it is text.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> Option<&str> {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

/// Runs user code and stops a panic in it. The panic goes to `tracing`, under the name `what`.
pub(crate) fn catch_panic(what: &'static str, user_code: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(user_code)) {
        report_panic(what, payload);
    }
}

fn report_panic(what: &'static str, payload: Box<dyn Any + Send>) {
    emit(|| {
        let panic = panic_message(&*payload).unwrap_or("(no text)");
        // Not a field `message`: that is the event's own text, and JSON parsers keep only one.
        tracing::error!(what, panic, "{what} panicked: {panic}");
    });
    drop_payload(payload);
}

/// Drops a user's value and stops a panic in its destructor.
pub(crate) fn drop_catching<T>(what: &'static str, value: T) {
    // A value without a destructor needs no landing pad.
    if mem::needs_drop::<T>() {
        catch_panic(what, || drop(value));
    }
}

/// Values of the user, which are dropped one by one: a destructor that panics harms no other value. In a
/// plain `Vec`, a second panic would abort the process.
#[derive(Debug)]
pub(crate) struct DropEach<T>(Vec<T>);

impl<T> DropEach<T> {
    pub(crate) fn new(values: Vec<T>) -> Self {
        Self(values)
    }

    pub(crate) fn take(&mut self) -> Vec<T> {
        mem::take(&mut self.0)
    }
}

impl<T> Deref for DropEach<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<T> DerefMut for DropEach<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.0
    }
}

impl<T> Drop for DropEach<T> {
    fn drop(&mut self) {
        if mem::needs_drop::<T>() {
            let values = self.take().into_iter();
            values.for_each(|value| drop_catching("a destructor", value));
        }
    }
}

/// Wakes a waker and stops a panic in it.
pub(crate) fn wake(waker: Waker) {
    catch_panic("a waker", || waker.wake());
}

/// Wakes all of `wakers`, in order.
pub(crate) fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    wakers.into_iter().for_each(wake);
}

/// Drops a waker, if there is one, and stops a panic in its destructor.
pub(crate) fn drop_waker(waker: Option<Waker>) {
    if waker.is_some() {
        drop_catching("a waker's destructor", waker);
    }
}

/// Emits a `tracing` event: a subscriber is user code, too.
pub(crate) fn emit(event: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(event)) {
        drop_payload(payload);
    }
}

/// Drops a panic payload. Its destructor may panic, with a payload that may panic in turn: the
/// second payload is leaked.
pub(crate) fn drop_payload(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(second);
    }
}
