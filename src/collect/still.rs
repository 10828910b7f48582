//! Figures that stand because those of the cgroup above stand.
//!
//! What is counted of a cgroup is counted of its parent too, and the parent is read
//! first. So where the parent's figures are those of the tick before, nothing below has
//! moved from the parent's reading in that tick to its reading in this one.

use crate::kernel::tree::Node;

/// Of which cgroups the figures are those of the tick before; one for each collector
/// and tick.
#[derive(Debug, Default)]
pub(super) struct Still(Vec<bool>);

impl Still {
    /// A tick begins.
    pub(super) fn begin(&mut self) {
        self.0.clear();
    }

    /// Whether the figures of the cgroup above this one are those of the tick before.
    pub(super) fn above(&self, node: &Node) -> bool {
        node.parent.and_then(|parent| self.0.get(parent)).is_some_and(|still| *still)
    }

    /// Notes it of the cgroup that is read; each is, in the order of the nodes.
    pub(super) fn push(&mut self, still: bool) {
        self.0.push(still);
    }
}
