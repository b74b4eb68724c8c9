//! The state of the UI: the model, what the screen shows of it, and how it is looked at. It changes in
//! [`update`](super::update()) only.

use std::time::Duration;

use ratatui::layout::Size;

use super::{
    columns::{COLUMNS, Column, ColumnId, ContentWidths},
    rows::{Row, rows},
    theme::Theme,
    window::{CostShare, Window},
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
}

/// A hook that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingHook {
    /// The kernel's name for it.
    pub name: String,
    /// What is lost without it.
    pub lost: String,
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
        &COLUMNS[Column::index(self.column)]
    }

    /// Whether the largest comes first.
    pub(super) fn is_descending(self) -> bool {
        self.column().largest_first != self.reversed
    }
}

/// What the screen shows of the model: made anew with every batch, except while it is paused.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    /// In the order of the table.
    pub(super) rows: Vec<Row>,
    pub(super) widths: ContentWidths,
    /// How many there are.
    pub(super) loops: usize,
    pub(super) elapsed_ns: u64,
    pub(super) iterations_per_s: f64,
    pub(super) events_per_s: f64,
    pub(super) cost: Option<CostShare>,
    pub(super) drops: ioscope_common::Drops,
}

/// The whole state.
#[derive(Clone, Debug)]
pub struct App {
    pub(super) tracing: Tracing,
    pub(super) theme: Theme,
    pub(super) size: Size,
    pub(super) model: Model,
    pub(super) window: Window,
    pub(super) shown: Shown,
    pub(super) order: Order,
    pub(super) selected: Option<LoopId>,
    /// The first row on the screen.
    pub(super) top: usize,
    pub(super) paused: bool,
    pub(super) help: bool,
    pub(super) targets_ended: bool,
}

impl App {
    /// Nothing seen yet, on a terminal of this size (columns, rows).
    pub fn new(tracing: Tracing, stall_threshold: Duration, theme: Theme, size: (u16, u16)) -> Self {
        Self {
            tracing,
            theme,
            size: Size::new(size.0, size.1),
            model: Model::new(stall_threshold),
            window: Window::default(),
            shown: Shown::default(),
            order: Order { column: ColumnId::Utilisation, reversed: false },
            selected: None,
            top: 0,
            paused: false,
            help: false,
            targets_ended: false,
        }
    }

    /// Makes what the screen shows from the model.
    pub(super) fn refresh(&mut self) {
        let rows = rows(&self.model, &self.window, std::mem::take(&mut self.shown.rows));
        // When all have ended, the last state stays.
        let all_ended = rows.iter().all(|row| row.ended);
        let counted = || rows.iter().filter(|row| !row.ended || all_ended);
        self.shown = Shown {
            loops: counted().count(),
            widths: ContentWidths::of(&rows),
            elapsed_ns: self.model.elapsed_ns(),
            iterations_per_s: counted().map(|row| row.iterations_per_s).sum(),
            events_per_s: counted().map(|row| row.events_per_s).sum(),
            cost: self.window.cost(&self.model),
            drops: *self.model.drops(),
            rows,
        };
        self.sort();
    }

    /// Sorts the rows: what has ended comes last, and equal ones stay in the order of their finding.
    pub(super) fn sort(&mut self) {
        let order = self.order.column().order;
        let descending = self.order.is_descending();
        self.shown.rows.sort_by(|a, b| {
            let by_column = if descending { order(b, a) } else { order(a, b) };
            a.ended.cmp(&b.ended).then(by_column).then(a.id.cmp(&b.id))
        });
    }

    /// Where the selected row is in the table.
    pub(super) fn selected_row(&self) -> Option<usize> {
        let selected = self.selected?;
        self.shown.rows.iter().position(|row| row.id == selected)
    }

    /// The loop that has been stalled for longest, of those that are.
    pub(super) fn worst_stall(&self) -> Option<&Row> {
        self.shown.rows.iter().filter(|row| row.ongoing_stall.is_some()).max_by_key(|row| row.ongoing_stall)
    }
}
