//! The state of the UI: the model, what the screens show of it, and how they are looked at. It changes in
//! [`update`](super::update()) only.

use std::{collections::BTreeSet, time::Duration};

use ratatui::layout::Size;

use super::{
    bindings::KeyMap,
    columns::{Column, ColumnId},
    config::Config,
    history::History,
    rows::{Key, Row},
    shown::Shown,
    theme::Theme,
    tracks::Tracks,
    window::Window,
};
use crate::model::{LoopId, Model};

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
    /// Whether there is a preview of a row below the table, where there is room.
    pub(super) preview: bool,
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

/// How Stalls is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StallsState {
    /// By loop and beginning; without one, the first.
    pub(super) selected: Option<(LoopId, u64)>,
    pub(super) top: usize,
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
                preview: config.preview,
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

    /// The row that the preview is of: the selected one, else the first.
    pub(super) fn previewed_row(&self) -> Option<&Row> {
        self.selection().or_else(|| self.table().next())
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
