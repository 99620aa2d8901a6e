//! Doubly linked lists through indices: O(1) append and removal from the middle, no allocation per element.
//! One [`Links`] serves many [`List`]s as long as a node stands in at most one of them at a time.
//! Knows nothing of what its nodes mean.
//!
//! ```text
//!   List { first: 4, last: 2 }      Links   ... 2: (7 <- ->  )   4: (  <- -> 7)   7: (4 <- -> 2) ...
//! ```

use alloc::vec::Vec;

/// No node.
pub(crate) const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    previous: u32,
    next: u32,
}

/// The neighbours of every node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Links(Vec<Link>);

/// One list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct List {
    first: u32,
    last: u32,
}

impl Links {
    /// Makes room for the nodes `0..count`.
    pub(crate) fn reserve(&mut self, count: usize) {
        if self.0.len() < count {
            self.0.resize(count, Link { previous: NONE, next: NONE });
        }
    }

    /// Forgets all nodes; lists over them are void.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn next(&self, node: u32) -> Option<u32> {
        some(self.0[node as usize].next)
    }

    pub(crate) fn previous(&self, node: u32) -> Option<u32> {
        some(self.0[node as usize].previous)
    }
}

impl List {
    pub(crate) const EMPTY: List = List { first: NONE, last: NONE };

    pub(crate) fn is_empty(&self) -> bool {
        self.first == NONE
    }

    pub(crate) fn first(&self) -> Option<u32> {
        some(self.first)
    }

    /// The node must stand in no list over these links.
    pub(crate) fn push_back(&mut self, links: &mut Links, node: u32) {
        links.0[node as usize] = Link { previous: self.last, next: NONE };
        match some(self.last) {
            Some(last) => links.0[last as usize].next = node,
            None => self.first = node,
        }
        self.last = node;
    }

    /// The node must stand in this list.
    pub(crate) fn remove(&mut self, links: &mut Links, node: u32) {
        let Link { previous, next } = links.0[node as usize];
        match some(previous) {
            Some(previous) => links.0[previous as usize].next = next,
            None => self.first = next,
        }
        match some(next) {
            Some(next) => links.0[next as usize].previous = previous,
            None => self.last = previous,
        }
        links.0[node as usize] = Link { previous: NONE, next: NONE };
    }

    pub(crate) fn iter<'a>(&self, links: &'a Links) -> impl Iterator<Item = u32> + use<'a> {
        core::iter::successors(self.first(), |node| links.next(*node))
    }
}

fn some(node: u32) -> Option<u32> {
    (node != NONE).then_some(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(list: &List, links: &Links) -> Vec<u32> {
        list.iter(links).collect()
    }

    #[test]
    fn nodes_leave_from_both_ends_and_the_middle() {
        let mut links = Links::default();
        links.reserve(6);
        let mut list = List::EMPTY;
        for node in 0..6 {
            list.push_back(&mut links, node);
        }
        for (leaves, rest) in [(2, vec![0, 1, 3, 4, 5]), (0, vec![1, 3, 4, 5]), (5, vec![1, 3, 4]), (3, vec![1, 4])] {
            list.remove(&mut links, leaves);
            assert_eq!(shown(&list, &links), rest);
        }
        assert_eq!(links.previous(4), Some(1));
        list.push_back(&mut links, 2);
        assert_eq!(shown(&list, &links), [1, 4, 2]);
    }

    #[test]
    fn two_lists_share_their_links() {
        let mut links = Links::default();
        links.reserve(4);
        let (mut even, mut odd) = (List::EMPTY, List::EMPTY);
        for node in 0..4 {
            if node % 2 == 0 { &mut even } else { &mut odd }.push_back(&mut links, node);
        }
        even.remove(&mut links, 0);
        odd.push_back(&mut links, 0);
        assert_eq!((shown(&even, &links), shown(&odd, &links)), (vec![2], vec![1, 3, 0]));
        even.remove(&mut links, 2);
        assert!(even.is_empty() && even == List::EMPTY);
    }
}
