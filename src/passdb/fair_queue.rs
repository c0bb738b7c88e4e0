//! A bounded queue in which whoever sends much waits behind himself.
//!
//! Jobs are kept by network, and the networks by the wider block they lie in; blocks take turns, and inside each the
//! networks do. When the queue is full, a newcomer takes the place of the last job of the busiest block, or, when
//! that is his own, of the busiest network in it; if that is his own too, he is turned away. So a guesser with a
//! thousand waiting attempts delays another network's user by one job, and so does one who has 65,536 networks of one
//! block to send them from.

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

/// What networks lie in: an IPv4 /24, or the IPv6 /48 that one site gets, with its 65,536 networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Block {
    Unknown,
    V4([u8; 3]),
    V6([u8; 6]),
}

impl From<Prefix> for Block {
    fn from(prefix: Prefix) -> Self {
        match prefix {
            Prefix::Unknown => Self::Unknown,
            Prefix::V4([a, b, c, _]) => Self::V4([a, b, c]),
            Prefix::V6([a, b, c, d, e, f, _, _]) => Self::V6([a, b, c, d, e, f]),
        }
    }
}

/// See the module's head.
#[derive(Debug)]
pub struct FairQueue<T> {
    blocks: HashMap<Block, Waiting<T>>,
    /// The blocks that have jobs, next one first.
    turns: VecDeque<Block>,
    len: usize,
    capacity: usize,
}

/// The jobs of one block; at least one.
#[derive(Debug)]
struct Waiting<T> {
    by_prefix: HashMap<Prefix, VecDeque<T>>,
    /// The prefixes that have jobs, next one first.
    turns: VecDeque<Prefix>,
    /// Prefixes with more than one job. While there are none, nobody has to be looked for.
    crowded: usize,
    len: usize,
}

impl<T> FairQueue<T> {
    /// An empty queue for at most `capacity` jobs.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { blocks: HashMap::new(), turns: VecDeque::new(), len: 0, capacity }
    }

    /// Adds a job. When the queue is full, the job that gives way is returned, which may be this one.
    pub fn push(&mut self, prefix: Prefix, job: T) -> Option<T> {
        let block = Block::from(prefix);
        let mut gives_way = None;
        if self.len == self.capacity {
            let Some(last) = self.make_room(block, prefix) else {
                return Some(job);
            };
            gives_way = Some(last);
        }
        let waiting = self.blocks.entry(block).or_insert_with(|| {
            self.turns.push_back(block);
            Waiting { by_prefix: HashMap::new(), turns: VecDeque::new(), crowded: 0, len: 0 }
        });
        waiting.push(prefix, job);
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
        let block = self.turns.pop_front()?;
        let waiting = self.blocks.get_mut(&block)?;
        let job = waiting.pop()?;
        self.len -= 1;
        if waiting.len == 0 {
            self.blocks.remove(&block);
        } else {
            self.turns.push_back(block);
        }
        Some(job)
    }

    /// Takes away a job of somebody who has at least two more than the newcomer; `None` if nobody has.
    fn make_room(&mut self, block: Block, prefix: Prefix) -> Option<T> {
        let own = self.blocks.get(&block).map_or(0, |waiting| waiting.len);
        let (&busiest, waiting) = self.blocks.iter_mut().max_by_key(|(_, waiting)| waiting.len)?;
        // Its turn stays: a block that gives way has another job.
        let job = if busiest != block && waiting.len > own + 1 {
            waiting.drop_last(0)
        } else {
            let waiting = self.blocks.get_mut(&block)?;
            let own = waiting.by_prefix.get(&prefix).map_or(0, VecDeque::len);
            waiting.drop_last(own + 1)
        }?;
        self.len -= 1;
        Some(job)
    }
}

impl<T> Waiting<T> {
    fn push(&mut self, prefix: Prefix, job: T) {
        let jobs = self.by_prefix.entry(prefix).or_insert_with(|| {
            self.turns.push_back(prefix);
            VecDeque::new()
        });
        jobs.push_back(job);
        self.crowded += usize::from(jobs.len() == 2);
        self.len += 1;
    }

    fn pop(&mut self) -> Option<T> {
        let prefix = self.turns.pop_front()?;
        let jobs = self.by_prefix.get_mut(&prefix)?;
        let job = jobs.pop_front()?;
        self.crowded -= usize::from(jobs.len() == 1);
        self.len -= 1;
        if jobs.is_empty() {
            self.by_prefix.remove(&prefix);
        } else {
            self.turns.push_back(prefix);
        }
        Some(job)
    }

    /// Removes the last job of the prefix that has most, if that is more than `few`. If nobody has more than one, it is
    /// the one whose turn would have come last.
    fn drop_last(&mut self, few: usize) -> Option<T> {
        let (prefix, most) = if self.crowded == 0 {
            (*self.turns.back()?, 1)
        } else {
            let most = self.by_prefix.iter().max_by_key(|(_, jobs)| jobs.len())?;
            (*most.0, most.1.len())
        };
        if most <= few {
            return None;
        }
        let jobs = self.by_prefix.get_mut(&prefix)?;
        let job = jobs.pop_back()?;
        self.crowded -= usize::from(jobs.len() == 1);
        self.len -= 1;
        if jobs.is_empty() {
            self.by_prefix.remove(&prefix);
            self.turns.pop_back();
        }
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

    /// Of one /48.
    fn v6(site: u8, network: u16) -> Prefix {
        let [high, low] = network.to_be_bytes();
        Prefix::V6([0x20, 0x01, 0x0d, 0xb8, 0, site, high, low])
    }

    #[test]
    fn one_site_with_all_its_networks_delays_a_newcomer_by_one_job_and_keeps_nobody_out() {
        let mut queue = FairQueue::new(1_024);
        for network in 0..=u16::MAX {
            let turned_away = queue.push(v6(1, network), 1);
            assert_eq!(turned_away.is_some(), network >= 1_024);
        }
        assert_eq!(queue.push(v6(2, 0), 2), Some(1), "another site");
        assert_eq!(queue.push(v4(1), 3), Some(1));
        assert_eq!(queue.push(Prefix::Unknown, 4), Some(1));
        assert_eq!(queue.len(), 1_024);
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).take(6).collect();
        assert_eq!(order, [1, 2, 3, 4, 1, 1]);
        assert_eq!(queue.len(), 1_018);
    }

    #[test]
    fn sites_come_to_have_equal_shares_and_so_do_the_networks_in_each() {
        let mut queue = FairQueue::new(12);
        for network in 0..12 {
            assert_eq!(queue.push(v6(1, network), (1, network)), None);
        }
        // All of one network; the site gets its share all the same.
        for job in 0..6 {
            assert_eq!(queue.push(v6(2, 0), (2, job)), Some((1, 11 - job)));
        }
        assert_eq!(queue.push(v6(2, 0), (2, 6)), Some((2, 6)), "both have six");
        assert_eq!(queue.push(v6(1, 12), (1, 12)), Some((1, 12)), "each of his networks has one");
        assert_eq!(queue.push(v6(2, 1), (2, 10)), Some((2, 5)), "his own site's busiest network");
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        let sites: Vec<_> = order.iter().map(|(site, _)| *site).collect();
        assert_eq!(sites, [1, 2].repeat(6));
        let second: Vec<_> = order.iter().filter(|(site, _)| *site == 2).map(|(_, job)| *job).collect();
        assert_eq!(second, [0, 10, 1, 2, 3, 4]);
        assert!(queue.is_empty() && queue.blocks.is_empty() && queue.turns.is_empty());
    }

    #[test]
    fn one_ipv6_customer_is_one_prefix() {
        let prefix = |text: &str| Prefix::from(Some(text.parse().unwrap()));
        assert_eq!(prefix("2001:db8::1"), prefix("2001:db8::ffff:1"));
        assert_ne!(prefix("2001:db8::1"), prefix("2001:db8:0:1::1"));
        assert_eq!(prefix("::ffff:192.0.2.1"), prefix("192.0.2.1"));
    }
}
