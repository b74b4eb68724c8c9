//! The state of the UI: the model, what the screens show of it, and how they are looked at. It changes in
//! [`update`](super::update()) only.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use ioscope_common::Iteration;
use ratatui::layout::Size;

use super::{
    bindings::KeyMap,
    columns::{Column, ColumnId, ContentWidths},
    config::Config,
    history::History,
    rows::{Key, Row, processes, rows},
    theme::Theme,
    tracks::Tracks,
    window::{CostShare, Window},
};
use crate::model::{Identity, LoopId, Model, Present, StallLog, Stats, stalls::Stall};

/// So many of a loop's last iterations are shown in Detail, at most.
const LAST: usize = 40;
/// So many stalls are listed, at most.
const MOST_STALLS: usize = 1000;

/// What is traced, and with what: it does not change while it is.
#[derive(Clone, Debug, Default)]
pub struct Tracing {
    /// The target, for people: `node (1234)`.
    pub title: String,
    /// What the facts come from: `tracepoint`.
    pub attach: String,
    /// The hooks that this kernel lacks.
    pub missing: Vec<MissingHook>,
    /// Whether the kernel measures the probes' own time.
    pub bpf_time: bool,
}

/// A hook that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingHook {
    /// The kernel's name for it.
    pub name: String,
    /// What is lost without it.
    pub lost: String,
}

/// What fills the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Screen {
    Loops,
    Detail,
    Timeline,
    Stalls,
    Compare,
}

impl Screen {
    pub(super) const ALL: [Self; 5] =
        [Self::Loops, Self::Detail, Self::Timeline, Self::Stalls, Self::Compare];

    /// In the configuration file.
    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::Loops => "loops",
            Self::Detail => "detail",
            Self::Timeline => "timeline",
            Self::Stalls => "stalls",
            Self::Compare => "compare",
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Loops => "Loops",
            Self::Detail => "Detail",
            Self::Timeline => "Timeline",
            Self::Stalls => "Stalls",
            Self::Compare => "Compare",
        }
    }

    /// The one so many places after this one.
    pub(super) fn step(self, by: usize) -> Self {
        let at = Self::ALL.iter().position(|screen| *screen == self).unwrap_or(0);
        Self::ALL[(at + by) % Self::ALL.len()]
    }
}

/// When the table has rows for processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grouping {
    /// When there are several.
    Auto,
    Always,
    Never,
}

impl Grouping {
    pub(super) const NAMED: [(&'static str, Self); 3] =
        [("auto", Self::Auto), ("always", Self::Always), ("never", Self::Never)];
}

/// By which column the table is sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) column: ColumnId,
    /// The other way round than a reader wants at first.
    pub(super) reversed: bool,
}

impl Order {
    pub(super) fn column(self) -> &'static Column {
        Column::of(self.column)
    }

    /// Whether the largest comes first.
    pub(super) fn is_descending(self) -> bool {
        self.column().largest_first != self.reversed
    }
}

/// How Loops is looked at.
#[derive(Clone, Debug)]
pub(super) struct LoopsState {
    pub(super) order: Order,
    /// The other screens' too.
    pub(super) selected: Option<Key>,
    /// The first row on the screen.
    pub(super) top: usize,
    /// Processes whose loops are not shown.
    pub(super) folded: BTreeSet<u32>,
    pub(super) grouping: Grouping,
    /// The columns that are not to be shown.
    pub(super) hidden: Vec<ColumnId>,
}

/// How Timeline is looked at.
#[derive(Clone, Debug)]
pub(super) struct TimelineState {
    /// Nanoseconds from the left to the right.
    pub(super) span: u64,
    /// The right edge, while the screen is held; else it is the present.
    pub(super) held_at: Option<u64>,
    /// The moment under the cursor, while the screen is held.
    pub(super) cursor: u64,
    /// The first lane on the screen.
    pub(super) top: usize,
    pub(super) wakeups: Wakeups,
}

/// Whose wakeups Timeline draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wakeups {
    OfSelected,
    All,
    None,
}

/// What lies over the screen and takes the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Overlay {
    /// From this line on.
    Help(usize),
    /// The chooser of columns, with this one selected.
    Columns(usize),
    /// A line to type into: the filter, with what it was before.
    Filter(String),
    /// The same: the threshold of a stall, and what is wrong with it.
    Threshold(String, Option<String>),
}

/// What the screens show of the model: made anew so often, except while it is paused.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    /// All loops, and after them all processes.
    pub(super) rows: Vec<Row>,
    /// What the table shows, in its order: indices into `rows`.
    pub(super) table: Vec<usize>,
    /// What Timeline shows, in its order: indices into `rows`.
    pub(super) lanes: Vec<usize>,
    pub(super) widths: ContentWidths,
    /// How many loops there are.
    pub(super) loops: usize,
    /// How many of them are in the table or in a folded process.
    pub(super) matching: usize,
    pub(super) at: u64,
    pub(super) elapsed_ns: u64,
    pub(super) iterations_per_s: f64,
    pub(super) events_per_s: f64,
    pub(super) cost: Option<CostShare>,
    pub(super) drops: ioscope_common::Drops,
    /// The loop of Detail, while it is on the screen.
    pub(super) inspected: Option<Box<Inspected>>,
    /// The processes of Compare, while it is on the screen.
    pub(super) compared: Vec<Compared>,
    /// The stalls of Stalls, while it is on the screen.
    pub(super) stalls: Vec<ShownStall>,
}

/// A loop in full.
#[derive(Clone, Debug)]
pub(super) struct Inspected {
    pub(super) identity: Arc<Identity>,
    pub(super) ended: bool,
    pub(super) present: Present,
    pub(super) ongoing_stall: Option<u64>,
    pub(super) stalls: StallLog,
    /// Since tracing began, and lately.
    pub(super) total: Stats,
    pub(super) recent: Stats,
    /// The last that streamed, the newest first.
    pub(super) iterations: Vec<Iteration>,
}

/// A stall and whose it is.
#[derive(Clone, Debug)]
pub(super) struct ShownStall {
    pub(super) identity: Arc<Identity>,
    pub(super) stall: Stall,
}

/// How Stalls is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StallsState {
    /// By loop and beginning; without one, the first.
    pub(super) selected: Option<(LoopId, u64)>,
    pub(super) top: usize,
}

/// A process, all its loops together.
#[derive(Clone, Debug)]
pub(super) struct Compared {
    pub(super) pid: u32,
    pub(super) name: String,
    pub(super) loops: usize,
    pub(super) ended: bool,
    /// The greatest of its loops' utilisations.
    pub(super) busiest: f64,
    pub(super) iterations_per_s: f64,
    pub(super) events_per_s: f64,
    /// Since tracing began, all loops added up.
    pub(super) stats: Stats,
}

/// The whole state.
#[derive(Clone, Debug)]
pub struct App {
    pub(super) tracing: Tracing,
    pub(super) theme: Theme,
    pub(super) keys: KeyMap,
    pub(super) size: Size,
    pub(super) model: Model,
    pub(super) window: Window,
    pub(super) history: History,
    pub(super) tracks: Tracks,
    pub(super) shown: Shown,
    pub(super) screen: Screen,
    pub(super) loops: LoopsState,
    /// The loop that Detail shows, and the first of its lines on the screen.
    pub(super) detail: (Option<LoopId>, usize),
    pub(super) timeline: TimelineState,
    pub(super) stalls: StallsState,
    /// Processes to compare, and the first line of that screen.
    pub(super) marked: BTreeSet<u32>,
    pub(super) compare_top: usize,
    pub(super) filter: String,
    pub(super) overlay: Option<Overlay>,
    pub(super) paused: bool,
    pub(super) targets_ended: bool,
    /// A word on what the last key did, until the next.
    pub(super) note: Option<String>,
    pub(super) refresh_every: Duration,
    /// When it is time to make anew what is shown.
    pub(super) refresh_at: u64,
    /// The loops that were asked to stream.
    pub(super) streaming: Vec<LoopId>,
}

impl App {
    /// Nothing seen yet, on a terminal of this size (columns, rows).
    pub fn new(
        tracing: Tracing,
        stall_threshold: Duration,
        theme: Theme,
        config: &Config,
        size: (u16, u16),
    ) -> Self {
        let is_wanted = |id: ColumnId| config.columns.as_ref().is_none_or(|wanted| wanted.contains(&id));
        Self {
            tracing,
            theme,
            keys: config.keys.clone(),
            size: Size::new(size.0, size.1),
            model: Model::new(stall_threshold),
            window: Window::default(),
            history: History::default(),
            tracks: Tracks::default(),
            shown: Shown::default(),
            screen: config.screen,
            loops: LoopsState {
                order: Order { column: config.sort, reversed: config.reverse },
                selected: None,
                top: 0,
                folded: BTreeSet::new(),
                grouping: config.group,
                hidden: super::columns::COLUMNS
                    .iter()
                    .map(|column| column.id)
                    .filter(|id| !is_wanted(*id))
                    .collect(),
            },
            detail: (None, 0),
            timeline: TimelineState {
                span: 5_000_000_000,
                held_at: None,
                cursor: 0,
                top: 0,
                wakeups: Wakeups::OfSelected,
            },
            stalls: StallsState::default(),
            marked: BTreeSet::new(),
            compare_top: 0,
            filter: String::new(),
            overlay: None,
            paused: false,
            targets_ended: false,
            note: None,
            refresh_every: config.refresh,
            refresh_at: 0,
            streaming: Vec::new(),
        }
    }

    /// Makes what the screens show from the model.
    pub(super) fn refresh(&mut self) {
        let rows = rows(&self.model, &self.window, std::mem::take(&mut self.shown.rows));
        // When all have ended, the last state stays.
        let all_ended = rows.iter().all(|row| row.ended);
        let counted = || rows.iter().filter(|row| !row.ended || all_ended);
        self.shown = Shown {
            loops: counted().count(),
            at: self.model.now(),
            elapsed_ns: self.model.elapsed_ns(),
            iterations_per_s: counted().map(|row| row.iterations_per_s).sum(),
            events_per_s: counted().map(|row| row.events_per_s).sum(),
            cost: self.window.cost(&self.model),
            drops: *self.model.drops(),
            rows,
            ..Shown::default()
        };
        self.arrange();
        self.look_closer();
    }

    /// Makes what only the present screen shows.
    pub(super) fn look_closer(&mut self) {
        let inspected = (self.screen == Screen::Detail).then(|| self.inspect()).flatten();
        self.shown.inspected = inspected.map(Box::new);
        self.shown.stalls = if self.screen == Screen::Stalls { self.collect_stalls() } else { Vec::new() };
        self.shown.compared = if self.screen == Screen::Compare { self.compare() } else { Vec::new() };
    }

    fn inspect(&self) -> Option<Inspected> {
        let id = self.detail.0?;
        let entry = self.model.get(id)?;
        let track = self.tracks.of(id);
        Some(Inspected {
            identity: Arc::clone(&entry.identity),
            ended: entry.ended,
            present: entry.present,
            ongoing_stall: entry.ongoing_stall(self.model.stall_threshold),
            stalls: entry.stalls.clone(),
            total: entry.stats.clone(),
            recent: self.window.recent(entry),
            iterations: track.map_or_else(Vec::new, |track| track.newest().take(LAST).copied().collect()),
        })
    }

    /// The stalls of the loops that match the filter: those that go on, the longest first, then the others, the
    /// latest first.
    fn collect_stalls(&self) -> Vec<ShownStall> {
        let filter = self.filter.to_lowercase();
        let mut stalls: Vec<ShownStall> = self
            .model
            .loops()
            .flat_map(|entry| {
                let identity = &entry.identity;
                entry
                    .stalls
                    .iter()
                    .map(move |stall| ShownStall { identity: Arc::clone(identity), stall: stall.clone() })
            })
            .filter(|shown| {
                let identity = &shown.identity;
                let names = [&identity.comm, &identity.process];
                filter.is_empty()
                    || names.iter().any(|name| name.to_lowercase().contains(&filter))
                    || identity.tid.to_string().starts_with(&filter)
            })
            .collect();
        stalls.sort_by_key(|shown| (!shown.stall.is_ongoing(), std::cmp::Reverse(shown.stall.began_at)));
        let ongoing = stalls.partition_point(|shown| shown.stall.is_ongoing());
        stalls[..ongoing].sort_by_key(|shown| std::cmp::Reverse(shown.stall.duration_ns()));
        stalls.truncate(MOST_STALLS);
        stalls
    }

    /// Which of the stalls is selected, by its place in the list.
    pub(super) fn selected_stall(&self) -> usize {
        let is_selected =
            |shown: &ShownStall| self.stalls.selected == Some((shown.stall.loop_id, shown.stall.began_at));
        self.shown.stalls.iter().position(is_selected).unwrap_or(0)
    }

    /// The marked processes, in the order of their numbers, or all, the busiest first.
    fn compare(&self) -> Vec<Compared> {
        let mut compared: BTreeMap<u32, Compared> = BTreeMap::new();
        let is_wanted = |pid: u32| self.marked.is_empty() || self.marked.contains(&pid);
        for entry in self.model.loops().filter(|entry| is_wanted(entry.identity.pid)) {
            let stats = &entry.stats;
            let per_second = |number: u64| stats.per_second(number);
            let process = compared.entry(entry.identity.pid).or_insert_with(|| Compared {
                pid: entry.identity.pid,
                name: entry.identity.process.clone(),
                loops: 0,
                ended: true,
                busiest: 0.0,
                iterations_per_s: 0.0,
                events_per_s: 0.0,
                stats: Stats::new(0),
            });
            process.loops += 1;
            process.ended &= entry.ended;
            process.busiest = process.busiest.max(stats.utilisation());
            process.iterations_per_s += per_second(stats.iterations());
            process.events_per_s += per_second(stats.counters.ready_events);
            process.stats.add(stats);
        }
        let mut compared: Vec<Compared> = compared.into_values().collect();
        if self.marked.is_empty() {
            compared.sort_by(|a, b| b.busiest.total_cmp(&a.busiest));
        }
        compared
    }

    /// Whether the table has rows for processes.
    pub(super) fn is_grouped(&self) -> bool {
        match self.loops.grouping {
            Grouping::Always => true,
            Grouping::Never => false,
            Grouping::Auto => {
                let mut pids = self.shown.rows.iter().map(|row| row.identity.pid);
                let first = pids.next();
                pids.any(|pid| Some(pid) != first)
            }
        }
    }

    /// Works out which rows there are, and in which order: what has ended comes last, and equal ones stay in
    /// the order of their finding.
    pub(super) fn arrange(&mut self) {
        let mut all = std::mem::take(&mut self.shown.rows);
        all.retain(|row| !row.is_process());
        self.shown.rows = all;
        let grouped = self.is_grouped();
        let all = &mut self.shown.rows;
        let order = self.loops.order.column().order;
        let descending = self.loops.order.is_descending();
        let by_order = |a: &Row, b: &Row| {
            let by_column = if descending { order(b, a) } else { order(a, b) };
            a.ended.cmp(&b.ended).then(by_column).then(a.key.cmp(&b.key))
        };
        all.sort_by(by_order);
        let filter = self.filter.to_lowercase();
        let matches: Vec<bool> = all.iter().map(|row| filter.is_empty() || is_match(row, &filter)).collect();
        let loops: Vec<usize> = (0..all.len()).filter(|at| matches[*at]).collect();
        self.shown.matching = loops.len();
        self.shown.lanes.clone_from(&loops);
        self.shown.lanes.sort_by_key(|at| (all[*at].identity.pid, all[*at].key));
        if grouped {
            let matching: Vec<Row> = loops.iter().map(|at| all[*at].clone()).collect();
            let mut processes = processes(&matching);
            processes.sort_by(by_order);
            let mut members: HashMap<u32, Vec<usize>> = HashMap::new();
            for at in loops {
                members.entry(all[at].identity.pid).or_default().push(at);
            }
            self.shown.table.clear();
            for process in processes {
                let pid = process.identity.pid;
                self.shown.table.push(all.len());
                all.push(process);
                if !self.loops.folded.contains(&pid) {
                    self.shown.table.extend(members.remove(&pid).unwrap_or_default());
                }
            }
        } else {
            self.shown.table = loops;
        }
        self.shown.widths = ContentWidths::of(&self.shown.rows);
    }

    /// The rows of the table, in its order.
    pub(super) fn table(&self) -> impl ExactSizeIterator<Item = &Row> {
        self.shown.table.iter().map(|at| &self.shown.rows[*at])
    }

    /// Where the selected row is in the table.
    pub(super) fn selected_row(&self) -> Option<usize> {
        let selected = self.loops.selected?;
        self.table().position(|row| row.key == selected)
    }

    /// The selected row, if it is in the table.
    pub(super) fn selection(&self) -> Option<&Row> {
        let selected = self.loops.selected?;
        self.table().find(|row| row.key == selected)
    }

    /// The loop that has been stalled for longest, of those that are.
    pub(super) fn worst_stall(&self) -> Option<&Row> {
        self.stalled().max_by_key(|row| row.ongoing_stall)
    }

    /// The loops that are stalled.
    pub(super) fn stalled(&self) -> impl Iterator<Item = &Row> {
        self.shown.rows.iter().filter(|row| row.ongoing_stall.is_some() && !row.is_process())
    }
}

/// Whether a row has this text, in lower case, in what it says of who it is and what it does.
fn is_match(row: &Row, text: &str) -> bool {
    let identity = &row.identity;
    let state = if row.ended { "ended" } else { row.present.state.name() };
    let stall = if row.ongoing_stall.is_some() { "stalled" } else { "" };
    [
        identity.comm.as_str(),
        &identity.process,
        identity.runtime.unwrap_or_default(),
        row.wait_call.map_or("", |call| call.name()),
        state,
        stall,
    ]
    .iter()
    .any(|field| field.to_lowercase().contains(text))
        || identity.pid.to_string() == text
        || identity.tid.to_string().starts_with(text)
}
