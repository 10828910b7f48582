//! The rules of the format that protobuf cannot say. Readers rely on them: what
//! was checked here is read without a second look.

use std::collections::HashSet;

use thiserror::Error;

use super::metrics::{ValueType, metric};
use super::proto;

/// Entities of one batch at most.
pub const MAX_ENTITIES: usize = 65_536;
/// Columns of one batch at most.
pub const MAX_COLUMNS: usize = 4_096;
/// Row sets of one batch at most.
pub const MAX_ROW_SETS: usize = 4_096;

/// Strings of one batch at most.
pub const MAX_STRINGS: usize = 1 << 21;
/// Reasons of one batch at most.
pub(super) const MAX_REASONS: usize = 64;

/// How a message breaks the rules of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    /// A field is longer than the message.
    #[error("a field is longer than the message")]
    Cut,
    /// The boot id.
    #[error("its boot id is not 16 bytes long")]
    BootId,
    /// The step's time.
    #[error("its time is not on the grid of its resolution")]
    Time,
    /// The string table.
    #[error("its first string is not the empty one")]
    FirstString,
    /// A reference into the string table.
    #[error("it refers to a string it does not have")]
    String,
    /// An id of an entity.
    #[error("an entity's id has a wrong length")]
    Id,
    /// Labels of an entity.
    #[error("an entity's labels are not pairs")]
    Labels,
    /// A rate's window.
    #[error("an entity refers to a window it does not have, or one of no length")]
    Window,
    /// Rows of a column.
    #[error("a row belongs to an entity it does not have")]
    Entity,
    /// Labels of rows.
    #[error("rows and their labels differ in number")]
    RowLabels,
    /// A reference to a row set.
    #[error("a column refers to rows it does not have")]
    Rows,
    /// Values of a column.
    #[error("a column's values and rows differ in number")]
    Values,
    /// Two columns of one metric.
    #[error("a metric has two columns")]
    Twice,
    /// More than the format allows.
    #[error("it has more entities, strings, columns, row sets or reasons than the format allows")]
    TooMany,
}

/// Whether `batch` keeps the rules of the format.
///
/// # Errors
/// The first rule it breaks.
pub(super) fn check(batch: &proto::Batch) -> Result<(), Malformed> {
    let rule = |kept: bool, broken: Malformed| if kept { Ok(()) } else { Err(broken) };
    rule(batch.entities.len() <= MAX_ENTITIES, Malformed::TooMany)?;
    rule(batch.columns.len() <= MAX_COLUMNS && batch.rows.len() <= MAX_ROW_SETS, Malformed::TooMany)?;
    rule(batch.strings.len() <= MAX_STRINGS && batch.dropped.len() <= MAX_REASONS, Malformed::TooMany)?;
    rule(batch.boot_id.len() == 16, Malformed::BootId)?;
    rule(matches!(batch.host_boot_id.len(), 0 | 16), Malformed::BootId)?;
    rule(batch.time_ms.checked_rem(batch.resolution_ms) == Some(0), Malformed::Time)?;
    rule(batch.strings.first().is_none_or(String::is_empty), Malformed::FirstString)?;
    // 0 stands for "not known", also where no string is sent at all.
    let known = |string: u32| string == 0 || usize::try_from(string).is_ok_and(|s| s < batch.strings.len());
    for entity in &batch.entities {
        entity_rules(batch, entity, &known)?;
    }
    for rows in &batch.rows {
        let mut at = 0_usize;
        for distance in &rows.entities {
            at = at.saturating_add(usize::try_from(*distance).unwrap_or(usize::MAX));
            rule(at < batch.entities.len(), Malformed::Entity)?;
        }
        let labels = &rows.labels;
        rule(labels.is_empty() || labels.len() == rows.entities.len(), Malformed::RowLabels)?;
        rule(labels.iter().all(|l| known(*l)), Malformed::String)?;
    }
    let mut seen = HashSet::new();
    for column in &batch.columns {
        let rows = usize::try_from(column.rows).ok().and_then(|rows| batch.rows.get(rows));
        let rows = rows.ok_or(Malformed::Rows)?.entities.len();
        rule(seen.insert(column.metric), Malformed::Twice)?;
        // A newer agent's metric is left alone.
        let Some(metric) = metric(column.metric) else { continue };
        let values = match metric.sent_as() {
            ValueType::Integer => column.integers.len(),
            ValueType::Double => column.doubles.len(),
        };
        rule(values == rows, Malformed::Values)?;
    }
    Ok(())
}

fn entity_rules(
    batch: &proto::Batch,
    entity: &proto::Entity,
    known: &impl Fn(u32) -> bool,
) -> Result<(), Malformed> {
    let proto::Entity { namespace, pod, container, name, image, container_id_text, node, .. } = entity;
    if ![namespace, pod, container, name, image, container_id_text, node].into_iter().all(|s| known(*s))
        || !entity.labels.iter().all(|l| known(*l))
    {
        return Err(Malformed::String);
    }
    if !matches!(entity.pod_uid.len(), 0 | 16) || !matches!(entity.container_id.len(), 0 | 32) {
        return Err(Malformed::Id);
    }
    if !entity.labels.len().is_multiple_of(2) {
        return Err(Malformed::Labels);
    }
    match entity.window.checked_sub(1) {
        None => Ok(()),
        Some(at) => {
            let window = usize::try_from(at).ok().and_then(|at| batch.windows_ns.get(at));
            window.filter(|ns| **ns > 0).map(|_| ()).ok_or(Malformed::Window)
        }
    }
}
