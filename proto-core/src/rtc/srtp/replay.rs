//! The replay window (RFC 3711, 3.3.2): which of the last packets have been seen.

/// How many numbers behind the newest are remembered (A27).
pub const WINDOW: u64 = 1_024;
const WORDS: usize = WINDOW as usize / 64;

/// Remembers the newest number and which of the [`WINDOW`] up to it were seen.
#[derive(Clone, Debug, Default)]
pub struct Window {
    newest: Option<u64>,
    seen: [u64; WORDS],
}

impl Window {
    fn slot(number: u64) -> (usize, u64) {
        ((number / 64) as usize % WORDS, 1 << (number % 64))
    }

    /// Whether a packet with this number may be looked at: not seen, and not too old to know.
    pub fn is_new(&self, number: u64) -> bool {
        let Some(newest) = self.newest else { return true };
        if number > newest {
            return true;
        }
        let (word, bit) = Window::slot(number);
        newest - number < WINDOW && self.seen.get(word).is_some_and(|w| w & bit == 0)
    }

    /// Notes a number whose packet proved authentic.
    pub fn seen(&mut self, number: u64) {
        match self.newest {
            Some(newest) if number <= newest => {
                if newest - number >= WINDOW {
                    return;
                }
            }
            Some(newest) if number - newest < WINDOW => {
                for skipped in newest + 1..number {
                    self.set(skipped, false);
                }
                self.newest = Some(number);
            }
            _ => {
                self.seen = [0; WORDS];
                self.newest = Some(number);
            }
        }
        self.set(number, true);
    }

    fn set(&mut self, number: u64, seen: bool) {
        let (word, bit) = Window::slot(number);
        if let Some(word) = self.seen.get_mut(word) {
            if seen {
                *word |= bit;
            } else {
                *word &= !bit;
            }
        }
    }
}
