//! What one subscriber wants to hear.

use std::collections::HashSet;

use bytes::Bytes;

/// How much of a topic a subscription can name, in bytes. No topic is longer, so a longer subscription matches nothing.
const TOPIC_BYTES_MAX: usize = 256;
/// What a subscription costs besides its bytes: its place in the set, and the allocation.
const SUBSCRIPTION_BYTES: usize = 80;

/// More subscriptions than a peer may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {0} subscriptions")]
pub struct TooMany(pub usize);

/// The subscriptions of one peer.
#[derive(Debug, Default)]
pub struct Subscriptions {
    /// Beginnings of topics. As in libzmq, a subscription made twice is still one.
    wanted: HashSet<Bytes>,
    wanted_bytes: usize,
    /// How many subscriptions are longer than any topic. Of those only the number is kept: a peer cancels as often as it
    /// has subscribed.
    unmatched: usize,
}

impl Subscriptions {
    /// Adds a subscription.
    ///
    /// # Errors
    /// If there are `max` already.
    pub fn add(&mut self, topic: &[u8], max: usize) -> Result<(), TooMany> {
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

    /// How many there are.
    pub fn count(&self) -> usize {
        self.wanted.len() + self.unmatched
    }

    /// The beginnings of topics that are wanted, in no order; not those that are longer than any topic.
    pub fn topics(&self) -> impl Iterator<Item = &Bytes> {
        self.wanted.iter()
    }

    /// How many bytes they take.
    pub fn bytes(&self) -> usize {
        self.wanted_bytes
    }

    /// Whether events with this topic are wanted. The cost is that of the topic's length, however many subscriptions
    /// there are.
    pub fn wants(&self, topic: &[u8]) -> bool {
        !self.wanted.is_empty() && (0..=topic.len()).any(|end| self.wanted.contains(&topic[..end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_matched_by_their_beginning() {
        let mut wanted = Subscriptions::default();
        assert!(!wanted.wants(b"register"));
        wanted.add(b"reg", 9).unwrap();
        assert!(wanted.wants(b"register") && wanted.wants(b"reg"));
        assert!(!wanted.wants(b"re") && !wanted.wants(b"deregister"));
        wanted.add(b"", 9).unwrap();
        assert!(wanted.wants(b"deregister") && wanted.wants(b""));
        wanted.cancel(b"");
        wanted.cancel(b"register");
        assert!(wanted.wants(b"register") && !wanted.wants(b"deregister"));
    }

    #[test]
    fn the_same_subscription_is_one() {
        let mut wanted = Subscriptions::default();
        for _ in 0..3 {
            wanted.add(b"a", 1).unwrap();
        }
        assert_eq!(wanted.add(b"b", 1), Err(TooMany(1)));
        wanted.cancel(b"a");
        assert!(!wanted.wants(b"a"));
        wanted.add(b"b", 1).unwrap();
    }

    #[test]
    fn subscriptions_longer_than_any_topic_count_and_cost_nothing() {
        let mut wanted = Subscriptions::default();
        let long = vec![b'r'; TOPIC_BYTES_MAX + 1];
        for _ in 0..3 {
            wanted.add(&long, 4).unwrap();
        }
        assert_eq!(wanted.bytes(), 0);
        assert!(!wanted.wants(&long), "no topic is so long");
        wanted.add(&long[1..], 4).unwrap();
        assert_eq!(wanted.bytes(), TOPIC_BYTES_MAX + SUBSCRIPTION_BYTES);
        assert_eq!(wanted.add(b"a", 4), Err(TooMany(4)));
        assert_eq!(wanted.add(&long, 4), Err(TooMany(4)));
        for _ in 0..9 {
            wanted.cancel(&long);
            wanted.cancel(&long[1..]);
        }
        assert_eq!((wanted.unmatched, wanted.bytes()), (0, 0));
        wanted.add(b"a", 1).unwrap();
    }
}
