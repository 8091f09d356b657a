//! The hub: streams, their rings of frames, and the cursors of their subscribers.

pub mod delivery;
