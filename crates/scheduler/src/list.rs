//! Doubly linked lists through indices: O(1) append and removal from the middle, no allocation per element.
//! One store of links serves many [`List`]s as long as a node stands in at most one of them at a time: [`Links`], or
//! whatever keeps the links with its nodes, on several sides if they stand in several lists.
//! Knows nothing of what its nodes mean.
//!
//! ```text
//!   List { first: 4, last: 2 }      Links   ... 2: (7 <- ->  )   4: (  <- -> 7)   7: (4 <- -> 2) ...
//! ```

use alloc::vec::Vec;

/// No node.
pub(crate) const NONE: u32 = u32::MAX;

/// The neighbours of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    previous: u32,
    next: u32,
}

/// In no list.
pub(crate) const LOOSE: Link = Link { previous: NONE, next: NONE };

/// Where the links of nodes are.
pub(crate) trait Linked<const SIDE: usize> {
    fn link(&self, node: u32) -> Link;

    fn link_mut(&mut self, node: u32) -> &mut Link;
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
            self.0.resize(count, LOOSE);
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

impl Linked<0> for Links {
    #[inline]
    fn link(&self, node: u32) -> Link {
        self.0[node as usize]
    }

    #[inline]
    fn link_mut(&mut self, node: u32) -> &mut Link {
        &mut self.0[node as usize]
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
    #[inline]
    pub(crate) fn push_back<const SIDE: usize>(&mut self, links: &mut impl Linked<SIDE>, node: u32) {
        *links.link_mut(node) = Link { previous: self.last, next: NONE };
        match some(self.last) {
            Some(last) => links.link_mut(last).next = node,
            None => self.first = node,
        }
        self.last = node;
    }

    /// The node must stand in this list.
    #[inline]
    pub(crate) fn remove<const SIDE: usize>(&mut self, links: &mut impl Linked<SIDE>, node: u32) {
        let Link { previous, next } = core::mem::replace(links.link_mut(node), LOOSE);
        match some(previous) {
            Some(previous) => links.link_mut(previous).next = next,
            None => self.first = next,
        }
        match some(next) {
            Some(next) => links.link_mut(next).previous = previous,
            None => self.last = previous,
        }
    }

    pub(crate) fn iter<'a, const SIDE: usize, L: Linked<SIDE>>(
        &self,
        links: &'a L,
    ) -> impl Iterator<Item = u32> + use<'a, SIDE, L> {
        core::iter::successors(self.first(), |node| some(links.link(*node).next))
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
