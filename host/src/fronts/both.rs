//! Two fronts side by side, as one: the loop that serves knows of no second.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use crate::config;
use crate::protocol::event::{Event, Notice};
use crate::protocol::reply::Reply;

use super::roll::Roll;
use super::{Asked, Front};

/// The numbers of the second front's connections come behind this one, and those of the first before it.
const SECOND: u64 = 1 << 62;

/// Two fronts, of which the second may be absent.
pub struct Both<A: Front, B: Front> {
    first: A,
    second: Option<B>,
    /// What the fronts hand over, on its way into one batch.
    from_first: Vec<A::Message>,
    from_second: Vec<B::Message>,
}

/// What is of the one front or of the other.
#[derive(Debug)]
pub enum Either<A, B> {
    /// Of the first.
    First(A),
    /// Of the second.
    Second(B),
}

impl<A: Front, B: Front> Both<A, B> {
    /// The first front, and the second if there is one.
    pub fn of(first: A, second: Option<B>) -> Self {
        Both { first, second, from_first: Vec::new(), from_second: Vec::new() }
    }
}

impl<A: Front, B: Front> Front for Both<A, B> {
    type Message = Either<A::Message, B::Message>;
    type Caller = Either<A::Caller, B::Caller>;

    /// Each batch has what both have, so neither can keep the other waiting.
    async fn receive(&mut self, batch: &mut Vec<Self::Message>) {
        let Both { first, second, from_first, from_second } = self;
        {
            let mut first = pin!(first.receive(from_first));
            let mut second = pin!(async {
                match second {
                    Some(second) => second.receive(from_second).await,
                    None => std::future::pending().await,
                }
            });
            poll_fn(|context| {
                let is_ready = [first.as_mut().poll(context), second.as_mut().poll(context)];
                if is_ready.iter().any(Poll::is_ready) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
        batch.extend(from_first.drain(..).map(Either::First));
        batch.extend(from_second.drain(..).map(Either::Second));
    }

    fn read(&mut self, message: Self::Message) -> Option<Asked<Self::Caller>> {
        match message {
            Either::First(message) => self.first.read(message).map(|asked| asked.with_caller(Either::First)),
            Either::Second(message) => {
                self.second.as_mut()?.read(message).map(|asked| asked.with_caller(Either::Second))
            }
        }
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.first.has_room(bytes) && self.second.as_ref().is_none_or(|second| second.has_room(bytes))
    }

    fn is_gone(&self, caller: &Self::Caller) -> bool {
        match caller {
            Either::First(caller) => self.first.is_gone(caller),
            Either::Second(caller) => self.second.as_ref().is_none_or(|second| second.is_gone(caller)),
        }
    }

    fn reply(&mut self, caller: Self::Caller, reply: Reply) {
        match (caller, &mut self.second) {
            (Either::First(caller), _) => self.first.reply(caller, reply),
            (Either::Second(caller), Some(second)) => second.reply(caller, reply),
            (Either::Second(_), None) => {}
        }
    }

    fn publish(&mut self, event: Event) {
        if let Some(second) = &mut self.second {
            second.publish(event.clone());
        }
        self.first.publish(event);
    }

    fn notify(&mut self, notice: Notice) {
        if let Some(second) = &mut self.second {
            second.notify(notice.clone());
        }
        self.first.notify(notice);
    }

    fn set_limits(&mut self, limits: &config::Limits, server: &config::Server) {
        self.first.set_limits(limits, server);
        if let Some(second) = &mut self.second {
            second.set_limits(limits, server);
        }
    }

    fn call_roll(&self, roll: &mut Roll<'_>) {
        self.first.call_roll(roll);
        if let Some(second) = &self.second {
            roll.behind(SECOND, |roll| second.call_roll(roll));
        }
    }

    fn flush(&mut self) {
        self.first.flush();
        if let Some(second) = &mut self.second {
            second.flush();
        }
    }

    async fn close(self) {
        let second = async {
            if let Some(second) = self.second {
                second.close().await;
            }
        };
        tokio::join!(self.first.close(), second);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::future::pending;
    use std::rc::Rc;

    use futures_util::FutureExt;

    use super::*;
    use crate::fronts::roll::client;
    use crate::protocol::clients::{Clients, ClientsCursor};
    use crate::protocol::page::Page;
    use crate::protocol::reply::Code;
    use crate::security::origin::{Address, Origin};
    use crate::security::principal::Principal;

    /// A front whose messages are numbers, and what it was told to do.
    #[derive(Clone, Default)]
    struct Fake {
        connections: Vec<u64>,
        messages: Rc<RefCell<VecDeque<u32>>>,
        replies: Rc<RefCell<Vec<u32>>>,
    }

    impl Front for Fake {
        type Message = u32;
        type Caller = u32;

        async fn receive(&mut self, batch: &mut Vec<u32>) {
            let next = self.messages.borrow_mut().pop_front();
            match next {
                Some(message) => batch.push(message),
                None => pending().await,
            }
        }

        fn read(&mut self, caller: u32) -> Option<Asked<u32>> {
            let request = Err(Reply::failure(Code::NotFound, "no"));
            Some(Asked { caller, principal: Principal::Nobody, address: Address::Unknown, is_first: true, request })
        }

        fn has_room(&self, bytes: usize) -> bool {
            bytes < 10
        }

        fn is_gone(&self, caller: &u32) -> bool {
            *caller == 9
        }

        fn reply(&mut self, caller: u32, _reply: Reply) {
            self.replies.borrow_mut().push(caller);
        }

        fn publish(&mut self, _event: Event) {}

        fn notify(&mut self, _notice: Notice) {}

        fn set_limits(&mut self, _: &config::Limits, _: &config::Server) {}

        fn call_roll(&self, roll: &mut Roll<'_>) {
            let after = roll.after();
            for number in self.connections.iter().filter(|number| **number > after) {
                if !roll.has_room() {
                    break;
                }
                roll.look(*number, Origin::default(), || client(*number, Origin::default()));
            }
        }

        fn flush(&mut self) {}

        async fn close(self) {}
    }

    #[test]
    fn each_batch_has_what_both_have_and_replies_go_where_the_request_came_from() {
        let (first, second) = (Fake::default(), Fake::default());
        first.messages.borrow_mut().extend([1, 2, 3]);
        second.messages.borrow_mut().extend([7, 9]);
        let mut both = Both::of(first.clone(), Some(second.clone()));
        let mut sizes = Vec::new();
        let mut batch = Vec::new();
        while both.receive(&mut batch).now_or_never().is_some() {
            sizes.push(batch.len());
            for message in batch.drain(..) {
                let asked = both.read(message).unwrap();
                if !both.is_gone(&asked.caller) {
                    both.reply(asked.caller, asked.request.unwrap_err());
                }
            }
        }
        assert_eq!(sizes, [2, 2, 1], "neither waits for the other");
        assert_eq!((&*first.replies.borrow(), &*second.replies.borrow()), (&vec![1, 2, 3], &vec![7]));
        assert!(both.has_room(9) && !both.has_room(10));
    }

    #[test]
    fn the_clients_of_both_are_told_of_one_after_the_other() {
        let with = |connections: &[u64]| Fake { connections: connections.to_vec(), ..Fake::default() };
        let both = Both::of(with(&[1, 4, 5]), Some(with(&[1, 2, 9])));
        let mut asked = Clients { address: None, principal: None, page: Page { limit: 2, cursor: None } };
        let mut pages = Vec::new();
        loop {
            let mut roll = Roll::begin(&asked, &|_| true);
            both.call_roll(&mut roll);
            let (clients, _, next) = roll.end();
            pages.push(clients.iter().map(|client| client.connection).collect::<Vec<_>>());
            let Some(after) = next else { break };
            asked.page.cursor = Some(ClientsCursor { run: 0, after });
        }
        assert_eq!(pages, [vec![1, 4], vec![5, 1], vec![2, 9]]);
    }

    #[test]
    fn one_alone_is_served_as_before() {
        let first = Fake::default();
        first.messages.borrow_mut().extend([1]);
        let mut both = Both::<_, Fake>::of(first, None);
        let mut batch = Vec::new();
        assert!(both.receive(&mut batch).now_or_never().is_some() && batch.len() == 1);
        assert!(both.receive(&mut batch).now_or_never().is_none() && both.has_room(9));
    }
}
