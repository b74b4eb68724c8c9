//! Merged stacks as folded text, as a flame graph and as a tree for terminals: each a function of the
//! [`StackTree`], with the same bytes for the same tree.

use std::io::{self, Write};

use inferno::flamegraph::{self, Options, Palette, color::MultiPalette};

use super::{
    numbers::{duration, percent},
    stalls::{cause_text, functions},
};
use crate::{
    model::{
        Model,
        stalls::{Cause, WeightedStack},
    },
    symbols::{Frame, Origin, Stack, StackTree, TreeNode},
};

/// Why there is no flame graph.
#[derive(Debug, thiserror::Error)]
pub enum FlameError {
    /// A flame graph of nothing cannot be drawn.
    #[error("there are no stacks to draw")]
    Empty,
    /// It cannot be written.
    #[error("the flame graph cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// The stacks of all stalls of a run, below the name of the loop that they are of. What a loop slept in is told by one more, innermost
/// line, such as `[blocked in fsync]`, by which time on the CPU and time asleep in the same function are told apart.
pub fn stalls(model: &Model) -> StackTree {
    let mut tree = StackTree::new();
    for entry in model.loops() {
        entry.stalls.every_stack().for_each(|stack| {
            tree.add(&Stack { frames: frames(stack, &entry.identity.comm) }, stack.weight_ns);
        });
    }
    tree
}

/// All lines of a stack, innermost first.
fn frames(stack: &WeightedStack, root: &str) -> Vec<Frame> {
    let made_up = |name: &str| Frame {
        name: name.into(),
        module: None,
        location: None,
        inlined: false,
        origin: Origin::User,
    };
    let asleep = match stack.cause {
        Cause::User | Cause::Kernel | Cause::OnCpu => None,
        cause => Some(made_up(&format!("[{}]", cause_text(cause)))),
    };
    let known = &stack.stack.frames;
    let bare = functions(stack).filter(|_| known.is_empty()).map(|address| made_up(&address));
    asleep.into_iter().chain(known.iter().cloned()).chain(bare).chain([made_up(root)]).collect()
}

/// Writes a picture that says why there is no flame graph.
///
/// # Errors
/// When `out` cannot be written.
pub fn svg_of_nothing(out: &mut (impl Write + ?Sized), why: &str) -> io::Result<()> {
    let why = why.replace('&', "&amp;").replace('<', "&lt;");
    writeln!(
        out,
        "<?xml version=\"1.0\" standalone=\"no\"?>\n\
         <svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1200\" height=\"60\" viewBox=\"0 0 1200 60\">\n\
         <text x=\"600\" y=\"35\" text-anchor=\"middle\" font-family=\"monospace\">{why}</text>\n\
         </svg>"
    )
}

/// Writes folded stacks, the format that flamegraph.pl, inferno and speedscope read: a line a stack, the outermost
/// caller first, with the nanoseconds that were spent in it. Kernel functions end in `_[k]`, inlined ones in
/// `_[i]`, those made at run time in `_[j]`, as stackcollapse-perf.pl marks them.
///
/// # Errors
/// When `out` cannot be written.
pub fn folded(out: &mut (impl Write + ?Sized), tree: &StackTree) -> io::Result<()> {
    folded_lines(tree).iter().try_for_each(|line| writeln!(out, "{line}"))
}

/// Writes a flame graph: an SVG file that searches and zooms in any browser, with nothing loaded from
/// elsewhere.
///
/// # Errors
/// When the tree is empty, or `out` cannot be written.
pub fn svg(out: &mut (impl Write + ?Sized), tree: &StackTree, title: &str) -> Result<(), FlameError> {
    let lines = folded_lines(tree);
    if lines.is_empty() {
        return Err(FlameError::Empty);
    }
    let mut options = Options::default();
    title.clone_into(&mut options.title);
    "ns".clone_into(&mut options.count_name);
    // Tells kernel, inlined and just-in-time compiled functions apart by their marks.
    options.colors = Palette::Multi(MultiPalette::Java);
    options.deterministic = true;
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut *out)?;
    Ok(())
}

/// Writes the tree, from the outermost callers inwards: the share and the time of each function with all that it called. Functions
/// under `least` of the whole (0 to 1) are counted instead of shown. A function is indented where its caller called others too.
///
/// # Errors
/// When `out` cannot be written.
pub fn text(out: &mut impl Write, tree: &StackTree, least: f64) -> io::Result<()> {
    let whole = tree.total_ns();
    // Depth first, without recursion: the outermost of what is left is last.
    let mut left = vec![];
    push(&mut left, tree.roots(), whole, least, 0);
    while let Some(next) = left.pop() {
        match next {
            Line::Node(node, indent) => {
                let frame = node.frame();
                let share = percent(node.total_ns() as f64 / whole as f64);
                write!(out, "{share:>6} {:>7}  {:indent$}{}", duration(node.total_ns()), "", mark(frame))?;
                if let Some(module) = &frame.module {
                    write!(out, "  [{}]", module.rsplit('/').next().unwrap_or(module))?;
                }
                if let Some(location) = &frame.location {
                    write!(out, "  {location}")?;
                }
                writeln!(out)?;
                let children = node.children();
                let deeper = indent + if children.len() > 1 || node.own_ns() > 0 { INDENT } else { 0 };
                push(&mut left, children, whole, least, deeper);
            }
            Line::Rest { count, ns, indent } => {
                let share = percent(ns as f64 / whole as f64);
                let functions = if count == 1 { "function" } else { "functions" };
                writeln!(out, "{share:>6} {:>7}  {:indent$}({count} more {functions})", duration(ns), "")?;
            }
        }
    }
    Ok(())
}

/// How far a function is indented below its caller.
const INDENT: usize = 2;

enum Line<'a> {
    Node(TreeNode<'a>, usize),
    Rest { count: usize, ns: u64, indent: usize },
}

fn push<'a>(left: &mut Vec<Line<'a>>, nodes: Vec<TreeNode<'a>>, whole: u64, least: f64, indent: usize) {
    let (shown, rest): (Vec<_>, Vec<_>) =
        nodes.into_iter().partition(|node| node.total_ns() as f64 >= least * whole as f64);
    if !rest.is_empty() {
        let ns = rest.iter().map(TreeNode::total_ns).sum();
        left.push(Line::Rest { count: rest.len(), ns, indent });
    }
    left.extend(shown.into_iter().rev().map(|node| Line::Node(node, indent)));
}

fn folded_lines(tree: &StackTree) -> Vec<String> {
    let mut lines = Vec::new();
    let mut left: Vec<(TreeNode<'_>, String)> =
        tree.roots().into_iter().rev().map(|root| (root, mark(root.frame()))).collect();
    while let Some((node, path)) = left.pop() {
        if node.own_ns() > 0 {
            lines.push(format!("{path} {}", node.own_ns()));
        }
        let child = |child: TreeNode<'_>| format!("{path};{}", mark(child.frame()));
        left.extend(node.children().into_iter().rev().map(|node| (node, child(node))));
    }
    lines
}

/// The name with its mark; a semicolon would be taken for the next function.
fn mark(frame: &Frame) -> String {
    let mut name = frame.name.replace(';', ":");
    name.push_str(match (frame.origin, frame.inlined) {
        (Origin::Kernel, _) => "_[k]",
        (Origin::Jit, _) => "_[j]",
        (Origin::User, true) => "_[i]",
        (Origin::User, false) => "",
    });
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbols::{Location, Stack};

    fn frame(name: &str, origin: Origin, inlined: bool) -> Frame {
        Frame { name: name.into(), module: None, location: None, inlined, origin }
    }

    fn tree() -> StackTree {
        let main = Frame {
            module: Some("/usr/bin/app".into()),
            location: Some(Location { file: "app.c".into(), line: Some(7) }),
            ..frame("main", Origin::User, false)
        };
        let turn = frame("turn", Origin::User, false);
        let parse = frame("parse<a; b>", Origin::User, true);
        let js = frame("JS:*handle", Origin::Jit, false);
        let read = frame("vfs_read", Origin::Kernel, false);
        let mut tree = StackTree::new();
        let mut add = |inner: &[&Frame], ns| {
            let frames = inner.iter().copied().chain([&turn, &main]).cloned().collect();
            tree.add(&Stack { frames }, ns);
        };
        add(&[&parse], 600_000_000);
        add(&[&js], 300_000_000);
        add(&[&read, &js], 96_000_000);
        add(&[&read], 3_000_000);
        add(&[], 1_000_000);
        tree
    }

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn folded_stacks_are_what_flamegraph_reads() {
        assert_eq!(
            written(|out| folded(out, &tree()).unwrap()),
            "\
main;turn 1000000
main;turn;parse<a: b>_[i] 600000000
main;turn;JS:*handle_[j] 300000000
main;turn;JS:*handle_[j];vfs_read_[k] 96000000
main;turn;vfs_read_[k] 3000000
"
        );
        assert_eq!(written(|out| folded(out, &StackTree::new()).unwrap()), "");
    }

    #[test]
    fn the_tree_shows_shares_and_counts_what_it_leaves_out() {
        assert_eq!(
            written(|out| text(out, &tree(), 0.01).unwrap()),
            "
100.0%   1.00s  main  [app]  app.c:7
100.0%   1.00s  turn
 60.0%   600ms    parse<a: b>_[i]
 39.6%   396ms    JS:*handle_[j]
  9.6%  96.0ms      vfs_read_[k]
  0.3%  3.00ms    (1 more function)
"
            .trim_start_matches('\n')
        );
        assert_eq!(written(|out| text(out, &StackTree::new(), 0.01).unwrap()), "");
    }

    #[test]
    fn a_deep_stack_needs_no_deep_recursion() {
        let mut tree = StackTree::new();
        let frames = (0..20_000).map(|depth| frame(&format!("f{depth}"), Origin::User, false)).collect();
        tree.add(&Stack { frames }, 1);
        assert_eq!(written(|out| text(out, &tree, 0.0).unwrap()).lines().count(), 20_000);
        assert_eq!(folded_lines(&tree).len(), 1);
    }

    /// Every function of the folded stacks is a box, with its share, in a document that an XML reader takes.
    #[test]
    fn the_flame_graph_has_a_box_for_every_function() {
        let draw = || written(|out| svg(out, &tree(), "stalls of <app>").unwrap());
        let graph = draw();
        for title in [
            "all (1,000,000,000 ns, 100%)",
            "main (1,000,000,000 ns, 100.00%)",
            "parse&lt;a: b&gt; (600,000,000 ns, 60.00%)",
            "JS:*handle (396,000,000 ns, 39.60%)",
            "vfs_read (96,000,000 ns, 9.60%)",
            "stalls of &lt;app&gt;",
        ] {
            assert!(graph.contains(title), "{title} is missing");
        }
        assert!(graph.starts_with("<?xml") && graph.trim_end().ends_with("</svg>"));
        assert_eq!(graph, draw(), "the same tree, the same bytes");
    }

    #[test]
    fn a_flame_graph_of_nothing_is_refused() {
        let mut out = Vec::new();
        let error = svg(&mut out, &StackTree::new(), "nothing").unwrap_err();
        assert_eq!(error.to_string(), "there are no stacks to draw");
        assert!(out.is_empty());
    }
}
