//! What the agent sends: every step is written once, as one batch, and each
//! sink encodes it when it sends.

pub mod log;
