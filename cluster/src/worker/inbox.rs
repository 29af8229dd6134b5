//! Notices for this worker.

use std::rc::Rc;

use super::core::Shared;
use crate::broker::{Broker, Inbox, Notice};
use crate::protocol::names;
use crate::protocol::notice::{Control, decode, encode};

/// Answers notices. They can be lost, so nothing depends on them.
pub(super) async fn listen<B: Broker>(shared: Rc<Shared<B>>) {
    let subjects = [
        names::control(&shared.options.id),
        names::CONTROL_ALL.to_owned(),
    ];
    let open = async || shared.broker.inbox(&subjects).await;
    let mut inbox = shared.until_known("receive notices", open).await;
    loop {
        let notice = inbox.next().await;
        on_notice(&shared, notice).await;
    }
}

async fn on_notice<B: Broker>(shared: &Shared<B>, notice: Notice) {
    match decode(&notice.payload) {
        Some(Control::Cancel { job }) => {
            let held = shared.held.borrow().get(&job).map(Rc::clone);
            if let Some(held) = held {
                held.cancel();
            }
        }
        Some(Control::Holds { job, nonce }) => {
            let holds = {
                let held = shared.held.borrow();
                held.get(&job).is_some_and(|held| held.nonce == nonce)
            };
            if let Some(reply) = notice.reply {
                let _ = shared.broker.notify_reply(&reply, encode(&holds)).await;
            }
        }
        Some(Control::Drain) => shared.control.drain(),
        // Of a newer peer.
        None => {}
    }
}
