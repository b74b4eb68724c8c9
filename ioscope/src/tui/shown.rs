//! What the screens show of the model: made from it once a refresh and not once a frame, and what only one screen
//! needs while that is shown.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use ioscope_common::Iteration;

use super::{
    columns::ContentWidths,
    history::Moment,
    rows::{Key, Row, processes, rows},
    state::{App, Grouping, Screen},
    view,
    window::CostShare,
};
use crate::{
    model::{
        Identity, LoopModel, Present, StallLog, Stats,
        findings::{self, Finding, Inputs, Severity},
        stalls::Stall,
    },
    output::json::syscall_name,
};

/// So many of a loop's last iterations are shown in Detail, at most.
const LAST: usize = 40;
/// So many stalls are listed, at most.
const MOST_STALLS: usize = 1000;

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
    /// What is wrong with the loops since tracing began and worth a warning, the worst first.
    pub(super) findings: Vec<Finding>,
    /// The loop of Detail, while it is on the screen.
    pub(super) inspected: Option<Box<Inspected>>,
    /// The row of the preview, while Loops is on the screen and has room for it.
    pub(super) preview: Option<Box<Preview>>,
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
    /// What is wrong with it, the worst first.
    pub(super) findings: Vec<Finding>,
    /// The last that streamed, the newest first.
    pub(super) iterations: Vec<Iteration>,
}

/// What a row of Loops did lately.
#[derive(Clone, Debug)]
pub(super) struct Preview {
    pub(super) row: Row,
    /// All loops added up; lately, or, when they have ended, since tracing began.
    pub(super) stats: Stats,
    /// What is wrong with them, the worst first.
    pub(super) findings: Vec<Finding>,
    /// The mean of all loops, the newest last.
    pub(super) moments: Vec<Moment>,
}

/// A stall and whose it is.
#[derive(Clone, Debug)]
pub(super) struct ShownStall {
    pub(super) identity: Arc<Identity>,
    pub(super) stall: Stall,
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

impl App {
    /// Makes what the screens show from the model.
    pub(super) fn refresh(&mut self) {
        let mut rows = rows(&self.model, &self.window, std::mem::take(&mut self.shown.rows));
        let findings: Vec<Finding> = self.find(self.model.loops()).into_iter().filter(is_a_warning).collect();
        tell(&mut rows, &findings);
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
            findings,
            rows,
            ..Shown::default()
        };
        self.arrange();
        self.look_closer();
    }

    /// Makes what only the present screen shows.
    pub(super) fn look_closer(&mut self) {
        self.shown.preview = self.preview().map(Box::new);
        let inspected = (self.screen == Screen::Detail).then(|| self.inspect()).flatten();
        self.shown.inspected = inspected.map(Box::new);
        self.shown.stalls = if self.screen == Screen::Stalls { self.collect_stalls() } else { Vec::new() };
        self.shown.compared = if self.screen == Screen::Compare { self.compare() } else { Vec::new() };
    }

    /// What is wrong with some loops since tracing began.
    fn find<'a>(&self, loops: impl IntoIterator<Item = &'a LoopModel>) -> Vec<Finding> {
        let with_stalls: Vec<(&LoopModel, Vec<Stall>)> =
            loops.into_iter().map(|entry| (entry, entry.stalls.iter().cloned().collect())).collect();
        findings::find(with_stalls.iter().map(|(entry, stalls)| Inputs {
            identity: &entry.identity,
            stats: &entry.stats,
            present: &entry.present,
            ended: entry.ended,
            stalls,
            unpolled: self.model.unpolled(entry),
            stall_threshold: self.model.threshold_of(entry),
            syscall_name,
        }))
    }

    fn preview(&self) -> Option<Preview> {
        view::has_preview(self).then_some(())?;
        let row = self.previewed_row()?;
        let entries: Vec<&LoopModel> = match row.key {
            Key::Loop(id) => self.model.get(id).into_iter().collect(),
            Key::Process(pid) => self.model.loops().filter(|entry| entry.identity.pid == pid).collect(),
        };
        let mut stats = Stats::new(0);
        for entry in &entries {
            stats.add(&if entry.ended { entry.stats.clone() } else { self.window.recent(entry) });
        }
        let ids = entries.iter().map(|entry| entry.id);
        Some(Preview {
            row: row.clone(),
            stats,
            moments: self.history.mean(ids),
            findings: self.find(entries).into_iter().filter(is_a_warning).collect(),
        })
    }

    fn inspect(&self) -> Option<Inspected> {
        let id = self.detail.0?;
        let entry = self.model.get(id)?;
        let track = self.tracks.of(id);
        Some(Inspected {
            identity: Arc::clone(&entry.identity),
            ended: entry.ended,
            present: entry.present,
            ongoing_stall: entry.ongoing_stall(self.model.threshold_of(entry)),
            stalls: entry.stalls.clone(),
            total: entry.stats.clone(),
            recent: self.window.recent(entry),
            findings: self.find([entry]),
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
                let members = members.remove(&pid).unwrap_or_default();
                // A row of its own would say the same once more.
                if members.len() > 1 {
                    self.shown.table.push(all.len());
                    all.push(process);
                }
                if members.len() == 1 || !self.loops.folded.contains(&pid) {
                    self.shown.table.extend(members);
                }
            }
        } else {
            self.shown.table = loops;
        }
        self.shown.widths = ContentWidths::of(&self.shown.rows);
    }
}

/// Whether a finding is more than worth knowing.
fn is_a_warning(finding: &Finding) -> bool {
    finding.severity > Severity::Info
}

/// Tells each loop's row what is wrong with it.
fn tell(rows: &mut [Row], findings: &[Finding]) {
    let mut by_loop: HashMap<(u32, u32), Vec<Severity>> = HashMap::new();
    for finding in findings {
        for identity in &finding.loops {
            by_loop.entry((identity.pid, identity.tid)).or_default().push(finding.severity);
        }
    }
    for row in rows {
        row.findings = None;
        for severity in by_loop.get(&(row.identity.pid, row.identity.tid)).into_iter().flatten() {
            row.find(*severity, 1);
        }
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
