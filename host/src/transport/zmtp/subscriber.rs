//! What one subscriber wants to hear, and what waits for it.

use std::collections::{HashSet, VecDeque};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::codec::{self, Kind};

/// An event as all its subscribers share it.
#[derive(Debug)]
pub struct Event {
    /// What subscriptions are matched with.
    pub topic: Bytes,
    /// The rest.
    pub body: Bytes,
    /// Both as frames that are not encrypted.
    pub frames: Bytes,
}

impl Event {
    /// Prepares an event for sending.
    pub fn new(topic: Bytes, body: Bytes) -> Self {
        let mut frames = BytesMut::with_capacity(codec::frame_bytes(topic.len()) + codec::frame_bytes(body.len()));
        codec::put_frame(Kind::Message { more: true }, &topic, &mut frames);
        codec::put_frame(Kind::Message { more: false }, &body, &mut frames);
        let frames = frames.freeze();
        // Slices of the same bytes: what waits for subscribers is kept once.
        Event { topic, body: frames.slice(frames.len() - body.len()..), frames }
    }
}

/// How much of a topic a subscription can name, in bytes. No topic is longer, so a longer subscription matches nothing.
const TOPIC_BYTES_MAX: usize = 256;
/// What a subscription costs besides its bytes: its place in the set, and the allocation.
const SUBSCRIPTION_BYTES: usize = 80;

/// More subscriptions than a peer may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {0} subscriptions")]
pub struct TooMany(pub usize);

/// One subscriber.
#[derive(Debug, Default)]
pub struct Subscriber {
    /// Beginnings of topics. As in libzmq, a subscription made twice is still one.
    wanted: HashSet<Bytes>,
    wanted_bytes: usize,
    /// How many subscriptions are longer than any topic. Of those only the number is kept: a peer cancels as often as it
    /// has subscribed.
    unmatched: usize,
    waiting: VecDeque<Rc<Event>>,
    waiting_bytes: usize,
}

impl Subscriber {
    /// Adds a subscription.
    ///
    /// # Errors
    /// If there are `max` already.
    pub fn subscribe(&mut self, topic: &[u8], max: usize) -> Result<(), TooMany> {
        let is_long = topic.len() > TOPIC_BYTES_MAX;
        if self.wanted.len() + self.unmatched >= max && (is_long || !self.wanted.contains(topic)) {
            return Err(TooMany(max));
        }
        if is_long {
            self.unmatched += 1;
        } else if self.wanted.insert(Bytes::copy_from_slice(topic)) {
            // A copy: the buffer that it came in is not kept for it.
            self.wanted_bytes += topic.len() + SUBSCRIPTION_BYTES;
        }
        Ok(())
    }

    /// Removes a subscription, if it is there.
    pub fn cancel(&mut self, topic: &[u8]) {
        if topic.len() > TOPIC_BYTES_MAX {
            self.unmatched = self.unmatched.saturating_sub(1);
        } else if self.wanted.remove(topic) {
            self.wanted_bytes -= topic.len() + SUBSCRIPTION_BYTES;
        }
    }

    /// How many bytes its subscriptions take.
    pub fn subscription_bytes(&self) -> usize {
        self.wanted_bytes
    }

    /// Whether it wants events with this topic. The cost is that of the topic's length, however many subscriptions
    /// there are.
    pub fn wants(&self, topic: &[u8]) -> bool {
        !self.wanted.is_empty() && (0..=topic.len()).any(|end| self.wanted.contains(&topic[..end]))
    }

    /// Lets an event wait. If more than `bytes_max` wait then, the oldest go: how many that were.
    pub fn queue(&mut self, event: Rc<Event>, bytes_max: usize) -> usize {
        self.waiting_bytes += event.frames.len();
        self.waiting.push_back(event);
        let mut dropped = 0;
        // The newest stays, however long it is.
        while self.waiting_bytes > bytes_max && self.waiting.len() > 1 {
            self.take_oldest();
            dropped += 1;
        }
        dropped
    }

    /// Takes the oldest event that waits.
    pub fn take_oldest(&mut self) -> Option<Rc<Event>> {
        let event = self.waiting.pop_front()?;
        self.waiting_bytes -= event.frames.len();
        Some(event)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u8) -> Rc<Event> {
        Rc::new(Event::new(Bytes::from_static(b"register"), Bytes::from(vec![number; 88])))
    }

    #[test]
    fn topics_are_matched_by_their_beginning() {
        let mut subscriber = Subscriber::default();
        assert!(!subscriber.wants(b"register"));
        subscriber.subscribe(b"reg", 9).unwrap();
        assert!(subscriber.wants(b"register") && subscriber.wants(b"reg"));
        assert!(!subscriber.wants(b"re") && !subscriber.wants(b"deregister"));
        subscriber.subscribe(b"", 9).unwrap();
        assert!(subscriber.wants(b"deregister") && subscriber.wants(b""));
        subscriber.cancel(b"");
        subscriber.cancel(b"register");
        assert!(subscriber.wants(b"register") && !subscriber.wants(b"deregister"));
    }

    #[test]
    fn the_same_subscription_is_one() {
        let mut subscriber = Subscriber::default();
        for _ in 0..3 {
            subscriber.subscribe(b"a", 1).unwrap();
        }
        assert_eq!(subscriber.subscribe(b"b", 1), Err(TooMany(1)));
        subscriber.cancel(b"a");
        assert!(!subscriber.wants(b"a"));
        subscriber.subscribe(b"b", 1).unwrap();
    }

    #[test]
    fn subscriptions_longer_than_any_topic_count_and_cost_nothing() {
        let mut subscriber = Subscriber::default();
        let long = vec![b'r'; TOPIC_BYTES_MAX + 1];
        for _ in 0..3 {
            subscriber.subscribe(&long, 4).unwrap();
        }
        assert_eq!(subscriber.subscription_bytes(), 0);
        assert!(!subscriber.wants(&long), "no topic is so long");
        subscriber.subscribe(&long[1..], 4).unwrap();
        assert_eq!(subscriber.subscription_bytes(), TOPIC_BYTES_MAX + SUBSCRIPTION_BYTES);
        assert_eq!(subscriber.subscribe(b"a", 4), Err(TooMany(4)));
        assert_eq!(subscriber.subscribe(&long, 4), Err(TooMany(4)));
        for _ in 0..9 {
            subscriber.cancel(&long);
            subscriber.cancel(&long[1..]);
        }
        assert_eq!((subscriber.unmatched, subscriber.subscription_bytes()), (0, 0));
        subscriber.subscribe(b"a", 1).unwrap();
    }

    #[test]
    fn the_oldest_events_go_when_too_many_wait() {
        let mut subscriber = Subscriber::default();
        let length = event(0).frames.len();
        let dropped: usize = (0..10).map(|number| subscriber.queue(event(number), 3 * length)).sum();
        assert_eq!(dropped, 7);
        let left: Vec<u8> = std::iter::from_fn(|| subscriber.take_oldest()).map(|event| event.body[0]).collect();
        assert_eq!(left, [7, 8, 9]);
        assert_eq!(subscriber.waiting_bytes, 0);
    }

    #[test]
    fn one_event_waits_however_long_it_is() {
        let mut subscriber = Subscriber::default();
        assert_eq!(subscriber.queue(event(1), 10), 0);
        assert_eq!(subscriber.queue(event(2), 10), 1);
        assert_eq!(subscriber.take_oldest().expect("it waits").body[0], 2);
        assert!(subscriber.is_empty());
    }

    #[test]
    fn an_event_is_two_frames() {
        let event = Event::new(Bytes::from_static(b"expire"), Bytes::from_static(b"{}"));
        assert_eq!(&event.frames[..], b"\x01\x06expire\x00\x02{}");
    }
}
