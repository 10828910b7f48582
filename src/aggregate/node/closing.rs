//! What the sums of a slot are made from.

use super::{Entity, Node, WINDOWS, value, window_of};
use crate::aggregate::window::Step;
use crate::push::batch::{Metric, Value};
use crate::rate;

impl Node {
    /// Hands the values of metrics that have no label in some slots to `each`, with
    /// the index of the metric and the entity they belong to. Slots that are not
    /// there have none. Each slot is unpacked once.
    pub fn values_in(
        &self,
        slots: &[u64],
        metrics: &[&Metric],
        mut each: impl FnMut(u64, usize, &Entity, Value),
    ) {
        let tell = |step: &Step| {
            for (at, metric) in metrics.iter().enumerate() {
                let column = u16::try_from(metric.id as i32).ok().and_then(|id| step.column(id));
                let Some((keys, column)) = column else { continue };
                for (key, bits) in keys.iter().zip(&column.values) {
                    let entity = usize::try_from(key >> 32).ok().and_then(|at| self.entities.get(at));
                    let Some(Some(entity)) = entity else { continue };
                    let window = window_of(step, *key).and_then(rate::Window::from_ns);
                    if !metric.is_rate() || window.is_some() {
                        let window = window.filter(|_| metric.is_rate());
                        each(step.time_ms, at, entity, value(metric, *bits, window));
                    }
                }
            }
        };
        match slots {
            [slot] => {
                let wanted =
                    |id: u16| id == WINDOWS || metrics.iter().any(|metric| i32::from(id) == metric.id as i32);
                self.window.at_with(*slot, wanted).iter().for_each(tell);
            }
            _ if self.window.times().any(|time| slots.contains(&time)) => {
                self.window.unpack().iter().filter(|s| slots.contains(&s.time_ms)).for_each(tell);
            }
            _ => {}
        }
    }
}
