//! The events that wait for a subscriber.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use crate::fronts::zmtp::memory::{Kept, Memory, Shared};
use registry_zmtp::codec::{self, Kind};

/// For how many events a subscriber that has read all of them keeps a place.
const KEPT: usize = 64;

/// An event as all its subscribers share it.
#[derive(Debug)]
pub struct Event {
    /// What subscriptions are matched with.
    pub topic: Bytes,
    /// The rest.
    pub body: Bytes,
    /// Both as frames that are not encrypted.
    pub frames: Bytes,
    /// The same, as it is counted.
    pub held: Shared,
}

impl Event {
    /// Prepares an event for sending.
    pub fn new(topic: Bytes, body: &[u8], memory: &Rc<Memory>) -> Rc<Self> {
        let mut frames = BytesMut::with_capacity(codec::frame_bytes(topic.len()) + codec::frame_bytes(body.len()));
        codec::put_frame(Kind::Message { more: true }, &topic, &mut frames);
        codec::put_frame(Kind::Message { more: false }, body, &mut frames);
        let frames = frames.freeze();
        // A part of the same bytes: an event is kept once.
        let body = frames.slice(frames.len() - body.len()..);
        let held = memory.share(Kept::One(frames.clone()));
        Rc::new(Event { topic, body, frames, held })
    }
}

/// What waits, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Events {
    waiting: VecDeque<Rc<Event>>,
    bytes: usize,
}

impl Events {
    /// Lets an event wait. If more than `bytes_max` wait then, the oldest go: how many that were.
    pub(super) fn queue(&mut self, event: Rc<Event>, bytes_max: usize) -> usize {
        self.bytes += event.frames.len();
        self.waiting.push_back(event);
        let mut dropped = 0;
        // The newest stays, however long it is.
        while self.bytes > bytes_max && self.waiting.len() > 1 {
            self.take_oldest();
            dropped += 1;
        }
        dropped
    }

    /// Takes the oldest event.
    pub(super) fn take_oldest(&mut self) -> Option<Rc<Event>> {
        let event = self.waiting.pop_front()?;
        self.bytes -= event.frames.len();
        if self.waiting.is_empty() && self.waiting.capacity() > KEPT {
            self.waiting = VecDeque::new();
        }
        Some(event)
    }

    /// The oldest event.
    pub(super) fn oldest(&self) -> Option<&Event> {
        self.waiting.front().map(|event| &**event)
    }

    /// All of them, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Event> {
        self.waiting.iter().map(|event| &**event)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many bytes wait. Other subscribers may wait for the same.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many bytes it takes to keep track of them.
    pub(super) fn own_bytes(&self) -> usize {
        self.waiting.capacity() * size_of::<Rc<Event>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u8, memory: &Rc<Memory>) -> Rc<Event> {
        Event::new(Bytes::from_static(b"register"), &[number; 88], memory)
    }

    #[test]
    fn the_oldest_events_go_when_too_many_wait() {
        let (memory, mut events) = (Memory::new(1 << 20), Events::default());
        let length = event(0, &memory).frames.len();
        let dropped: usize = (0..10).map(|number| events.queue(event(number, &memory), 3 * length)).sum();
        assert_eq!((dropped, memory.used()), (7, 3 * length));
        let left: Vec<u8> = std::iter::from_fn(|| events.take_oldest()).map(|event| event.body[0]).collect();
        assert_eq!(left, [7, 8, 9]);
        assert_eq!((events.bytes(), memory.used()), (0, 0));
    }

    #[test]
    fn one_event_waits_however_long_it_is() {
        let (memory, mut events) = (Memory::new(1 << 20), Events::default());
        assert_eq!(events.queue(event(1, &memory), 10), 0);
        assert_eq!(events.queue(event(2, &memory), 10), 1);
        assert_eq!(events.take_oldest().expect("it waits").body[0], 2);
        assert!(events.is_empty());
    }

    #[test]
    fn an_event_is_two_frames() {
        let event = Event::new(Bytes::from_static(b"expire"), b"{}", &Memory::new(100));
        assert_eq!(&event.frames[..], b"\x01\x06expire\x00\x02{}");
    }
}
