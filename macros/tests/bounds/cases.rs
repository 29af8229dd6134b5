//! What the compiler reports for types that cannot be sent. Each error is expected in the line of its
//! `//~` comment, and no other line has one.

#![forbid(unsafe_code)]

struct NoSerde;

#[futurepool::task]
fn argument(n: u32, plain: NoSerde) { //~ `NoSerde: serde::Serialize` is not satisfied
    let _ = (n, plain);
}

#[futurepool::task]
fn output() -> NoSerde { //~ `NoSerde: serde::Serialize` is not satisfied
    NoSerde
}

#[futurepool::task]
fn buffer_or_error() -> Result<Vec<u8>, NoSerde> { //~ `NoSerde: serde::Serialize` is not satisfied
    Err(NoSerde)
}

#[futurepool::task(name = "rc")]
fn not_send(shared: std::rc::Rc<u8>) { //~ `Rc<u8>` cannot be sent between threads safely
    let _ = shared;
}

#[futurepool::task]
async fn waits() {} //~ a task is no `async fn`

#[futurepool::task(attempts = 3)] //~ add `idempotent`
fn again() {}

// These have no error, in a crate that depends neither on serde nor on inventory.
#[futurepool::task(version = 2, idempotent, type = Shrink)]
pub(crate) fn shrink(image: Vec<u8>, args: (u8, Option<Vec<u8>>), r#type: Option<Option<u8>>) -> Option<()> {
    let _ = (image, args, r#type);
    None
}

fn main() {
    #[futurepool::task]
    fn local(local: u8) -> u8 {
        local
    }

    let _ = argument::call(1, NoSerde);
    let _ = Shrink::call(shrink_me(), (1, None), None);
    let _ = (local::call(1), futurepool::tasks![local, Shrink]);
}

fn shrink_me() -> Vec<u8> {
    Vec::new()
}
