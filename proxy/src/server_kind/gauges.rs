//! The series by which a server tells how busy it is.

/// Names that one signal has at most.
pub const MOST_ALIASES: usize = 2;

/// What a server tells of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Requests that it works on.
    Running,
    /// Requests that wait inside it.
    Queue,
    /// The part of its KV cache that is in use, 0 … 1.
    KvCache,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Running, Self::Queue, Self::KvCache];

    /// As in labels and in `scale.target`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Queue => "queue",
            Self::KvCache => "kv_cache",
        }
    }

    /// Several series of one page are parts of a whole: they are added. Otherwise their mean counts.
    pub fn adds_up(self) -> bool {
        self != Self::KvCache
    }
}

/// One series of a metrics page, a gauge: a counter of the same name is another thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series {
    /// Of the family.
    pub name: &'static str,
    /// Name and value of a label that it must have.
    pub label: Option<(&'static str, &'static str)>,
}

/// The series of each signal: a column of the table. The first of a list that a page has counts; an empty list: the
/// server does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gauges {
    /// Requests that it works on.
    pub running: &'static [Series],
    /// Requests that wait inside it.
    pub queue: &'static [Series],
    /// The part of its KV cache that is in use, 0 … 1.
    pub kv_cache: &'static [Series],
}

impl Gauges {
    /// Of a server that tells nothing.
    pub const NONE: Self = Self {
        running: &[],
        queue: &[],
        kv_cache: &[],
    };

    /// The names of a signal.
    pub fn of(&self, signal: Signal) -> &'static [Series] {
        match signal {
            Signal::Running => self.running,
            Signal::Queue => self.queue,
            Signal::KvCache => self.kv_cache,
        }
    }
}
