//! A bounded queue in which whoever sends much waits behind himself.
//!
//! Jobs are kept per network prefix and taken from the prefixes in turn. When the queue is full, a newcomer takes the
//! place of the last job of whoever has most; if that is the newcomer himself, he is turned away. So a guesser
//! with a thousand waiting attempts delays another network's user by one job.

use core::net::IpAddr;
use std::collections::{HashMap, VecDeque};

/// Whom a job counts for: an IPv4 address, an IPv6 /64, or everybody without an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Prefix {
    /// The address is not known.
    Unknown,
    /// One IPv4 address.
    V4([u8; 4]),
    /// The first 64 bits of an IPv6 address: what one customer gets.
    V6([u8; 8]),
}

impl From<Option<IpAddr>> for Prefix {
    fn from(address: Option<IpAddr>) -> Self {
        match address.map(|address| address.to_canonical()) {
            None => Self::Unknown,
            Some(IpAddr::V4(address)) => Self::V4(address.octets()),
            Some(IpAddr::V6(address)) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// See the module's head.
#[derive(Debug)]
pub struct FairQueue<T> {
    by_prefix: HashMap<Prefix, VecDeque<T>>,
    /// The prefixes that have jobs, next one first.
    turns: VecDeque<Prefix>,
    len: usize,
    capacity: usize,
}

impl<T> FairQueue<T> {
    /// An empty queue for at most `capacity` jobs.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { by_prefix: HashMap::new(), turns: VecDeque::new(), len: 0, capacity }
    }

    /// Adds a job. When the queue is full, the job that gives way is returned, which may be this one.
    pub fn push(&mut self, prefix: Prefix, job: T) -> Option<T> {
        let mut gives_way = None;
        if self.len == self.capacity {
            let own = self.by_prefix.get(&prefix).map_or(0, VecDeque::len);
            let most = self.by_prefix.iter().max_by_key(|(_, jobs)| jobs.len());
            match most.map(|(&prefix, jobs)| (prefix, jobs.len())) {
                Some((longest, jobs)) if jobs > own + 1 => gives_way = self.drop_last(longest),
                _ => return Some(job),
            }
        }
        let jobs = self.by_prefix.entry(prefix).or_default();
        if jobs.is_empty() {
            self.turns.push_back(prefix);
        }
        jobs.push_back(job);
        self.len += 1;
        gives_way
    }

    /// Jobs in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes the next job.
    pub fn pop(&mut self) -> Option<T> {
        let prefix = self.turns.pop_front()?;
        let jobs = self.by_prefix.get_mut(&prefix)?;
        let job = jobs.pop_front()?;
        self.len -= 1;
        if jobs.is_empty() {
            self.by_prefix.remove(&prefix);
        } else {
            self.turns.push_back(prefix);
        }
        Some(job)
    }

    /// Removes the last of several jobs of this prefix, so its turn stays.
    fn drop_last(&mut self, prefix: Prefix) -> Option<T> {
        let job = self.by_prefix.get_mut(&prefix)?.pop_back()?;
        self.len -= 1;
        Some(job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(last: u8) -> Prefix {
        Prefix::V4([192, 0, 2, last])
    }

    #[test]
    fn a_newcomer_is_next_however_many_wait_elsewhere() {
        let mut queue = FairQueue::new(10);
        for job in 0..5 {
            queue.push(v4(1), job);
        }
        queue.push(v4(2), 100);
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [0, 100, 1, 2, 3, 4]);
    }

    #[test]
    fn when_full_the_greediest_gives_way() {
        let mut queue = FairQueue::new(3);
        for job in 0..3 {
            assert_eq!(queue.push(v4(1), job), None);
        }
        assert_eq!(queue.push(v4(1), 3), Some(3), "nobody has more than he");
        assert_eq!(queue.push(v4(2), 10), Some(2));
        assert_eq!(queue.push(v4(3), 20), Some(1));
        assert_eq!(queue.push(v4(4), 30), Some(30), "everybody has one, so the last to come gives way");
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [0, 10, 20]);
    }

    #[test]
    fn one_ipv6_customer_is_one_prefix() {
        let prefix = |text: &str| Prefix::from(Some(text.parse().unwrap()));
        assert_eq!(prefix("2001:db8::1"), prefix("2001:db8::ffff:1"));
        assert_ne!(prefix("2001:db8::1"), prefix("2001:db8:0:1::1"));
        assert_eq!(prefix("::ffff:192.0.2.1"), prefix("192.0.2.1"));
    }
}
