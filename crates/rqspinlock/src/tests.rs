//! The lock as a whole: the case table by name, stress, and the models of loom.

#[cfg(not(loom))]
mod cases;
#[cfg(not(loom))]
mod harness;
#[cfg(not(loom))]
mod stress;
