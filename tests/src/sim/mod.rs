//! Generated runs of whole clusters. A [`Plan`](plan::Plan) says what happens; [`generate`] makes plans from a seed or
//! from the bytes of a fuzzer, [`run`] carries one out in a [`World`](crate::world::World), [`shrink`] finds the few
//! operations that matter for a failure, and [`report`] tells people about it.
//! [`node`] has one node and a client that says anything to it.

pub mod clock;
pub mod generate;
pub mod links;
pub mod loss;
mod media;
pub mod node;
pub mod plan;
pub mod quic;
pub mod report;
pub mod run;
pub mod shrink;
pub mod text;
