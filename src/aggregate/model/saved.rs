//! The model as it is written down, node by node: nobody waits for more than one.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::{Member, Model, NodeStatus, lock, millis, read, write};
use crate::aggregate::node::{Node, SavedNode};

/// One machine.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SavedMember {
    #[prost(string, tag = "1")]
    name: String,
    /// When it was heard, pushed and measured, milliseconds.
    #[prost(uint64, repeated, tag = "2")]
    times: Vec<u64>,
    #[prost(sint64, tag = "3")]
    ahead_ms: i64,
    #[prost(message, optional, tag = "4")]
    node: Option<SavedNode>,
}

impl Model {
    /// Hands each machine to `each`, which is not waited for by anybody who pushes.
    ///
    /// # Errors
    /// Those of `each`.
    pub fn save(&self, mut each: impl FnMut(&SavedMember) -> io::Result<()>) -> io::Result<()> {
        let members: Vec<_> = read(&self.nodes).values().cloned().collect();
        members.iter().try_for_each(|member| {
            let saved = {
                let member = lock(member);
                let status = &member.status;
                SavedMember {
                    name: status.name.to_string(),
                    times: vec![status.heard_ms, status.pushed_ms, status.measured_ms],
                    ahead_ms: status.ahead_ms,
                    node: Some(member.node.save()),
                }
            };
            each(&saved)
        })
    }

    /// Takes back a machine at `now_ms`; `None` if it cannot have been written down. What is
    /// too old is left out.
    pub fn restore(&self, saved: SavedMember, now_ms: u64) -> Option<()> {
        let [heard_ms, pushed_ms, measured_ms] = saved.times.as_slice().try_into().ok()?;
        let kept = millis(self.options.kept);
        let node = Node::restore(saved.node?, millis(self.options.resolution), self.steps(), &self.names)?;
        if saved.name.is_empty() || now_ms.saturating_sub(heard_ms) > kept {
            return Some(());
        }
        let name = self.names.get(&saved.name);
        let status = NodeStatus {
            name: Arc::clone(&name),
            heard_ms,
            pushed_ms,
            measured_ms,
            ahead_ms: saved.ahead_ms,
        };
        let mut member = Member { node, status };
        member.node.forget_before(now_ms.saturating_sub(kept));
        let changes = member.node.changes();
        self.move_pods(&name, changes);
        write(&self.nodes).insert(name, Arc::new(Mutex::new(member)));
        Some(())
    }

    /// After all machines were taken back: slots up to `closed_ms` were closed.
    pub fn restored(&self, closed_ms: u64) {
        let kept = millis(self.options.kept);
        let resolution = millis(self.options.resolution);
        let closed_ms = closed_ms / resolution * resolution;
        self.closed.store(closed_ms, Ordering::Release);
        let slots: Vec<u64> =
            (0..kept / resolution).map(|back| closed_ms.saturating_sub(back * resolution)).collect();
        self.sum(&slots);
    }
}
