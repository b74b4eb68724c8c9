//! Stacks merged into a tree, from the outermost caller inwards, each node with the time spent below it.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use super::{Frame, Origin, Stack};

/// Merged stacks. Frames are one node where name, module and kind are the same and so are all their callers: lines
/// differ from sample to sample and would tear a function apart.
#[derive(Clone, Debug, Default)]
pub struct StackTree {
    nodes: Vec<Node>,
    roots: Vec<usize>,
    places: HashMap<(Option<usize>, Key), usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    name: Arc<str>,
    module: Option<Arc<str>>,
    origin: Origin,
    inlined: bool,
}

#[derive(Clone, Debug)]
struct Node {
    frame: Frame,
    total_ns: u64,
    own_ns: u64,
    children: Vec<usize>,
}

/// A node of a [`StackTree`]: a function, called as its ancestors say.
#[derive(Clone, Copy, Debug)]
pub struct TreeNode<'a> {
    tree: &'a StackTree,
    node: &'a Node,
}

impl StackTree {
    /// An empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a stack with its weight in nanoseconds. Nothing happens for a stack without frames.
    pub fn add(&mut self, stack: &Stack, weight_ns: u64) {
        let mut parent = None;
        for frame in stack.frames.iter().rev() {
            let place = self.place(parent, frame);
            let node = &mut self.nodes[place];
            node.total_ns = node.total_ns.saturating_add(weight_ns);
            parent = Some(place);
        }
        if let Some(innermost) = parent {
            let node = &mut self.nodes[innermost];
            node.own_ns = node.own_ns.saturating_add(weight_ns);
        }
    }

    /// The outermost callers, the heaviest first; among equals by name.
    pub fn roots(&self) -> Vec<TreeNode<'_>> {
        self.sorted(&self.roots)
    }

    /// The weight of everything, in nanoseconds.
    pub fn total_ns(&self) -> u64 {
        self.roots.iter().fold(0, |sum, root| sum.saturating_add(self.nodes[*root].total_ns))
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    fn place(&mut self, parent: Option<usize>, frame: &Frame) -> usize {
        let Frame { name, module, origin, inlined, location: _ } = frame;
        let key = Key { name: name.clone(), module: module.clone(), origin: *origin, inlined: *inlined };
        if let Some(place) = self.places.get(&(parent, key.clone())) {
            return *place;
        }
        let place = self.nodes.len();
        self.nodes.push(Node { frame: frame.clone(), total_ns: 0, own_ns: 0, children: Vec::new() });
        self.places.insert((parent, key), place);
        match parent {
            Some(parent) => self.nodes[parent].children.push(place),
            None => self.roots.push(place),
        }
        place
    }

    fn sorted(&self, places: &[usize]) -> Vec<TreeNode<'_>> {
        let mut nodes: Vec<_> =
            places.iter().map(|place| TreeNode { tree: self, node: &self.nodes[*place] }).collect();
        nodes.sort_by_key(|found| {
            let Frame { name, module, origin, inlined, location: _ } = &found.node.frame;
            (Reverse(found.node.total_ns), name, module, *origin, *inlined)
        });
        nodes
    }
}

impl<'a> TreeNode<'a> {
    /// The function. Its location is that of the first stack that came here.
    pub fn frame(&self) -> &'a Frame {
        &self.node.frame
    }

    /// The time spent in it and in all that it called, in nanoseconds.
    pub fn total_ns(&self) -> u64 {
        self.node.total_ns
    }

    /// The time spent in it alone, in nanoseconds.
    pub fn own_ns(&self) -> u64 {
        self.node.own_ns
    }

    /// What it called, the heaviest first; among equals by name.
    pub fn children(&self) -> Vec<Self> {
        self.tree.sorted(&self.node.children)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbols::Location;

    fn frame(name: &str) -> Frame {
        Frame { name: name.into(), module: None, location: None, inlined: false, origin: Origin::User }
    }

    /// From the outermost caller inwards, as in a folded stack.
    fn stack(names: &str) -> Stack {
        Stack { frames: names.rsplit(';').map(frame).collect() }
    }

    fn shape(nodes: &[TreeNode<'_>]) -> String {
        let node = |node: &TreeNode<'_>| {
            let inside = shape(&node.children());
            format!("{} {}/{}({inside})", node.frame().name, node.own_ns(), node.total_ns())
        };
        nodes.iter().map(node).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn stacks_with_the_same_callers_share_their_nodes() {
        let mut tree = StackTree::new();
        assert!(tree.is_empty());
        tree.add(&stack("main;turn;read"), 5);
        tree.add(&stack("main;turn"), 2);
        tree.add(&stack("main;turn;spin"), 30);
        tree.add(&stack("start;turn;spin"), 4);
        tree.add(&Stack::default(), 1_000);
        assert_eq!(
            shape(&tree.roots()),
            "main 0/37(turn 2/37(spin 30/30() read 5/5())) start 0/4(turn 0/4(spin 4/4()))"
        );
        assert_eq!(tree.total_ns(), 41);
        assert!(!tree.is_empty());
    }

    #[test]
    fn recursion_is_a_node_a_call() {
        let mut tree = StackTree::new();
        tree.add(&stack("f;f;f"), 1);
        tree.add(&stack("f;f"), 1);
        assert_eq!(shape(&tree.roots()), "f 0/2(f 1/2(f 1/1()))");
    }

    #[test]
    fn equal_weights_are_in_the_order_of_their_names_whatever_came_first() {
        let mut one = StackTree::new();
        let mut other = StackTree::new();
        for (tree, names) in [(&mut one, ["b", "a", "c"]), (&mut other, ["c", "b", "a"])] {
            for name in names {
                tree.add(&stack(name), 1);
            }
        }
        assert_eq!(shape(&one.roots()), "a 1/1() b 1/1() c 1/1()");
        assert_eq!(shape(&one.roots()), shape(&other.roots()));
    }

    #[test]
    fn lines_do_not_tear_a_function_apart_but_modules_do() {
        let at = |line, module: &str| {
            let location = Some(Location { file: "a.c".into(), line: Some(line) });
            Stack { frames: vec![Frame { location, module: Some(module.into()), ..frame("f") }] }
        };
        let mut tree = StackTree::new();
        tree.add(&at(1, "a.so"), 1);
        tree.add(&at(2, "a.so"), 1);
        tree.add(&at(1, "b.so"), 1);
        assert_eq!(shape(&tree.roots()), "f 2/2() f 1/1()");
        assert_eq!(tree.roots()[0].frame().location.as_ref().unwrap().line, Some(1));
    }

    #[test]
    fn weights_do_not_overflow() {
        let mut tree = StackTree::new();
        tree.add(&stack("f"), u64::MAX);
        tree.add(&stack("f"), 1);
        tree.add(&stack("g"), 1);
        assert_eq!(tree.total_ns(), u64::MAX);
    }
}
