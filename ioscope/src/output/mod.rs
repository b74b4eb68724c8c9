//! Text and JSON: each a function of the model.

pub mod doctor;
pub mod flame;
pub mod json;
pub mod numbers;
pub mod stalls;
pub mod summary;
pub mod text;
pub mod trace;
