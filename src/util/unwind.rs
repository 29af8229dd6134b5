//! Where foreign code runs that may panic and must not take us along: callbacks, wakers, destructors of user data,
//! `tracing` subscribers.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What `panic!` says, if the payload is text.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> Option<&str> {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

/// Runs `foreign`; a panic in it ends here and goes to `tracing`, with `what` for a name.
pub(crate) fn catch_panic(what: &'static str, foreign: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(foreign)) {
        emit(|| {
            let message = panic_message(&*payload).unwrap_or("(no text)");
            tracing::error!(what, message, "{what} panicked: {message}");
        });
        drop_payload(payload);
    }
}

/// Drops a foreign value; a panic in its destructor ends here.
pub(crate) fn drop_catching<T>(what: &'static str, foreign: T) {
    catch_panic(what, || drop(foreign));
}

/// Emits a `tracing` event: the subscriber is foreign code, too.
pub(crate) fn emit(event: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(event)) {
        drop_payload(payload);
    }
}

/// Drops a panic's payload, whose own destructor may panic, and so on: at the second panic in a row it is leaked.
pub(crate) fn drop_payload(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(second);
    }
}
