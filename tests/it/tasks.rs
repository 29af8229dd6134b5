//! Tasks: functions that run in any executor.

use futurepool::{Bytes, Call, Task, task, tasks};

/// Doubles a number.
#[task]
fn double(n: u32) -> u32 {
    2 * n
}

#[task]
pub(crate) fn reverse(mut image: Vec<u8>) -> Option<Vec<u8>> {
    image.reverse();
    Some(image)
}

#[test]
fn a_call_runs_here() {
    assert_eq!(double(3), 6);
    assert_eq!(double::call(3).run(), 6);
    assert_eq!(reverse::call(vec![1, 2]).run(), Some(vec![2, 1]));
}
