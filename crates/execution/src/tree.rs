//! The Merkle tree over all objects: 16-ary, keyed by the hash of a leaf's name, so that its shape depends on what it
//! holds and never on the order in which that came.
//!
//! ```text
//!                 branch                 a subtree that holds one leaf is that leaf,
//!        0 / 1 |  2 ...   \ f            a subtree that holds none is nothing
//!      leaf    branch      leaf
//!              /    \                    hash(leaf)   = H(path, digest)
//!           leaf    leaf                 hash(branch) = H(hashes of the 16 children)
//! ```
//! Invariant: a branch that caches its hash has only children whose hashes are what it hashed. A change forgets the
//! hashes on its way, so [`Tree::root`] costs what has changed, not what there is.

use unisono_types::Digest;

const ARITY: usize = 16;

/// A named digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    path: Digest,
    name: Box<str>,
    digest: Digest,
}

#[derive(Debug, Default)]
enum Node {
    #[default]
    Nothing,
    Leaf(Box<Leaf>),
    Branch(Box<Branch>),
}

#[derive(Debug, Default)]
struct Branch {
    children: [Node; ARITY],
    hash: Option<Digest>,
}

/// The tree.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    top: Node,
    leaves: usize,
}

impl Tree {
    /// Sets the digest of `name`.
    pub(crate) fn set(&mut self, name: &str, digest: Digest) {
        let path = path_of(name);
        if let Some(leaf) = self.top.find(&path, 0) {
            leaf.digest = digest;
        } else {
            self.top.insert(Box::new(Leaf { path, name: name.into(), digest }), 0);
            self.leaves += 1;
        }
    }

    /// Takes `name` out.
    pub(crate) fn remove(&mut self, name: &str) {
        let path = path_of(name);
        if self.top.remove(&path, 0) {
            self.leaves -= 1;
        }
    }

    /// The hash over everything. All zero when there is nothing.
    pub(crate) fn root(&mut self) -> Digest {
        self.top.hash()
    }

    /// How many leaves there are.
    pub(crate) const fn len(&self) -> usize {
        self.leaves
    }

    /// At most `limit` leaves in the tree's order, from the first behind `after` on.
    pub(crate) fn page(&self, after: Option<&str>, limit: usize) -> Vec<(String, Digest)> {
        let after = after.map(path_of);
        let mut page = Vec::with_capacity(limit.min(self.leaves));
        self.top.page(after.as_ref(), 0, limit, &mut page);
        page
    }
}

fn path_of(name: &str) -> Digest {
    Digest::of("unisono leaf path", &[name.as_bytes()])
}

/// The `depth`-th half byte: which child a path takes there.
fn turn(path: &Digest, depth: usize) -> usize {
    let byte = path.0[depth / 2];
    usize::from(if depth.is_multiple_of(2) { byte >> 4 } else { byte & 15 })
}

impl Node {
    /// The leaf at `path`, about to be changed: hashes on the way to it are forgotten.
    fn find(&mut self, path: &Digest, depth: usize) -> Option<&mut Leaf> {
        match self {
            Self::Nothing => None,
            Self::Leaf(leaf) => (leaf.path == *path).then_some(&mut **leaf),
            Self::Branch(branch) => {
                let found = branch.children[turn(path, depth)].find(path, depth + 1);
                if found.is_some() {
                    branch.hash = None;
                }
                found
            }
        }
    }

    /// Puts in a leaf whose path is not there yet.
    fn insert(&mut self, leaf: Box<Leaf>, depth: usize) {
        match std::mem::take(self) {
            Self::Nothing => *self = Self::Leaf(leaf),
            Self::Leaf(other) => {
                let mut branch = Box::<Branch>::default();
                for leaf in [other, leaf] {
                    branch.children[turn(&leaf.path, depth)].insert(leaf, depth + 1);
                }
                *self = Self::Branch(branch);
            }
            Self::Branch(mut branch) => {
                branch.hash = None;
                branch.children[turn(&leaf.path, depth)].insert(leaf, depth + 1);
                *self = Self::Branch(branch);
            }
        }
    }

    /// Takes out the leaf at `path`; a branch left with a single leaf becomes that leaf.
    fn remove(&mut self, path: &Digest, depth: usize) -> bool {
        match self {
            Self::Nothing => false,
            Self::Leaf(leaf) if leaf.path == *path => {
                *self = Self::Nothing;
                true
            }
            Self::Leaf(_) => false,
            Self::Branch(branch) => {
                if !branch.children[turn(path, depth)].remove(path, depth + 1) {
                    return false;
                }
                branch.hash = None;
                let mut present = branch.children.iter_mut().filter(|child| !matches!(child, Self::Nothing));
                if let (Some(only @ Self::Leaf(_)), None) = (present.next(), present.next()) {
                    *self = std::mem::take(only);
                }
                true
            }
        }
    }

    fn hash(&mut self) -> Digest {
        match self {
            Self::Nothing => Digest::ZERO,
            Self::Leaf(leaf) => Digest::of("unisono leaf", &[&leaf.path.0, &leaf.digest.0]),
            Self::Branch(branch) => {
                if let Some(hash) = branch.hash {
                    return hash;
                }
                let mut hashes = [0; ARITY * 32];
                for (slot, child) in hashes.chunks_exact_mut(32).zip(&mut branch.children) {
                    slot.copy_from_slice(&child.hash().0);
                }
                *branch.hash.insert(Digest::of("unisono branch", &[&hashes]))
            }
        }
    }

    fn page(&self, after: Option<&Digest>, depth: usize, limit: usize, page: &mut Vec<(String, Digest)>) {
        match self {
            _ if page.len() >= limit => {}
            Self::Nothing => {}
            Self::Leaf(leaf) => {
                if after.is_none_or(|after| leaf.path > *after) {
                    page.push((leaf.name.to_string(), leaf.digest));
                }
            }
            Self::Branch(branch) => {
                // Only the child on the way of `after` holds leaves on both sides of it.
                let first = after.map_or(0, |after| turn(after, depth));
                for (index, child) in branch.children.iter().enumerate().skip(first) {
                    let after = after.filter(|_| index == first);
                    child.page(after, depth + 1, limit, page);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Random;
    use std::collections::BTreeMap;

    fn digest(value: u64) -> Digest {
        Digest::of("test", &[&value.to_le_bytes()])
    }

    #[test]
    fn an_empty_tree_has_the_zero_root_again_after_everything_left() {
        let mut tree = Tree::default();
        assert_eq!(tree.root(), Digest::ZERO);
        tree.set("a", digest(1));
        assert_ne!(tree.root(), Digest::ZERO);
        tree.remove("a");
        tree.remove("never there");
        assert_eq!((tree.root(), tree.len()), (Digest::ZERO, 0));
    }

    #[test]
    fn the_root_depends_on_what_is_in_and_not_on_how_it_came() {
        for seed in 0..40 {
            let mut random = Random::new(seed);
            let mut model = BTreeMap::new();
            let mut grown = Tree::default();
            for _ in 0..400 {
                let name = format!("row[{}]", random.below(120));
                match random.below(3) {
                    0 => {
                        model.remove(&name);
                        grown.remove(&name);
                    }
                    _ => {
                        let value = random.next_number();
                        grown.set(&name, digest(value));
                        model.insert(name, value);
                    }
                }
                if random.below(10) == 0 {
                    grown.root(); // caches hashes that later changes must forget
                }
            }
            let mut fresh = Tree::default();
            for (name, value) in model.iter().rev() {
                fresh.set(name, digest(*value));
            }
            assert_eq!(grown.root(), fresh.root(), "seed {seed}");
            assert_eq!(grown.len(), model.len(), "seed {seed}");
            if let Some((name, value)) = model.first_key_value() {
                fresh.set(name, digest(value ^ 1));
                assert_ne!(grown.root(), fresh.root(), "seed {seed}: one value differs");
            }
        }
    }

    #[test]
    fn pages_put_together_are_the_whole_tree_whatever_their_size() {
        let mut tree = Tree::default();
        (0..300).for_each(|i| tree.set(&format!("row[{i}]"), digest(i)));
        let whole = tree.page(None, usize::MAX);
        assert_eq!(whole.len(), 300);
        for limit in [1, 7, 299, 300, 301] {
            let mut read: Vec<(String, Digest)> = Vec::new();
            loop {
                let page = tree.page(read.last().map(|(name, _)| name.as_str()), limit);
                assert!(page.len() <= limit);
                if page.is_empty() {
                    break;
                }
                read.extend(page);
            }
            assert_eq!(read, whole, "limit {limit}");
        }
        let gone = whole[10].0.clone();
        tree.remove(&gone);
        assert_eq!(tree.page(Some(&gone), 1), vec![whole[11].clone()], "a page may begin behind what is no more");
    }
}
