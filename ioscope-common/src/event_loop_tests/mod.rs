//! The state machine against a reference of its own: threads that do what threads can do, by chance
//! ([`simulation`]), what should be known of them afterwards, worked out from the whole story at once
//! ([`reference`]), and stories told by hand that read as a specification ([`scenarios`]).

mod properties;
mod reference;
mod scenarios;
mod simulation;

use crate::{Block, Iteration, Loop, Step, Transition};

/// What becomes of a loop in a story, and what streams meanwhile.
struct Outcome {
    machine: Box<Loop>,
    iterations: Vec<Iteration>,
    blocks: Vec<Block>,
}

impl Outcome {
    /// A loop that is born at this time, about to enter its first wait call.
    fn born(now: u64) -> Self {
        let mut machine = Box::new(Loop::ZERO);
        machine.begin(7, now);
        Self { machine, iterations: Vec::new(), blocks: Vec::new() }
    }

    fn step(&mut self, transition: Transition, now: u64) -> Step {
        let step = self.machine.step(transition, now);
        if step.has(Step::ITERATION) {
            self.iterations.push(self.machine.last);
        }
        if step.has(Step::BLOCK) {
            self.blocks.push(self.machine.last_block);
        }
        step
    }
}
