//! Pictures out of the order in which they are coded into that in which they are shown.

use rusty_h264_common::YuvFrame;
use std::collections::VecDeque;

/// A decoded picture.
pub(crate) struct Picture {
    /// When it is shown, nanoseconds on the stream's clock.
    pub(crate) pts: i64,
    /// The source has a key frame here.
    pub(crate) key: bool,
    pub(crate) frame: YuvFrame,
}

/// The most pictures that may wait (ITU-T H.264, A.3.1: 16 frames).
const MOST: usize = 16;

/// Holds pictures back until none that is shown before them can come.
#[derive(Default)]
pub(crate) struct Order {
    /// By the time at which they are shown.
    waiting: VecDeque<Picture>,
    /// How many pictures may be coded before another and shown after it.
    depth: usize,
    last: Option<i64>,
}

impl Order {
    pub(crate) fn new(depth: u32, last: Option<i64>) -> Order {
        Order { waiting: VecDeque::new(), depth: (depth as usize).min(MOST), last }
    }

    /// Adds the next picture in coding order, and takes out those whose time has come. One that comes too late is left out
    /// (`false`), and from then on more are held back.
    pub(crate) fn push(&mut self, picture: Picture, out: &mut Vec<Picture>) -> bool {
        if picture.key {
            // Nothing that comes from here on is shown before it.
            self.flush(out);
        }
        if self.last.is_some_and(|last| picture.pts <= last) {
            self.depth = (self.depth + 1).min(MOST);
            return false;
        }
        let at = self.waiting.partition_point(|p| p.pts < picture.pts);
        self.waiting.insert(at, picture);
        while self.waiting.len() > self.depth {
            self.give(out);
        }
        true
    }

    /// Takes out all.
    pub(crate) fn flush(&mut self, out: &mut Vec<Picture>) {
        while !self.waiting.is_empty() {
            self.give(out);
        }
    }

    fn give(&mut self, out: &mut Vec<Picture>) {
        let Some(picture) = self.waiting.pop_front() else { return };
        if self.last.is_none_or(|last| picture.pts > last) {
            self.last = Some(picture.pts);
            out.push(picture);
        }
    }
}
