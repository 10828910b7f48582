//! Whether anything may be sent now: open for a time that somebody keeps renewing,
//! or for good.

use std::time::Instant;

use tokio::sync::watch;

/// See the module; clones are the same gate.
#[derive(Debug, Clone, Default)]
pub struct Gate(Option<watch::Receiver<Option<Instant>>>);

/// Who opens and closes a gate.
#[derive(Debug)]
pub struct Keeper(watch::Sender<Option<Instant>>);

/// A closed gate and its keeper.
pub fn gate() -> (Keeper, Gate) {
    let (sender, receiver) = watch::channel(None);
    (Keeper(sender), Gate(Some(receiver)))
}

impl Keeper {
    /// Opens it until then, whatever was said before.
    pub fn open_until(&self, end: Instant) {
        self.0.send_replace(Some(end));
    }

    /// Closes it.
    pub fn close(&self) {
        self.0.send_replace(None);
    }
}

impl Gate {
    /// Whether it is open: by the clock too, for a keeper that was held up.
    pub fn is_open(&self) -> bool {
        match &self.0 {
            None => true,
            Some(until) => until.borrow().is_some_and(|end| Instant::now() < end),
        }
    }

    /// Returns once it is open; never, when its keeper is gone and it is closed.
    pub async fn opened(&self) {
        let Some(mut until) = self.0.clone() else { return };
        while !self.is_open() {
            if until.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns once it is closed.
    pub async fn closed(&self) {
        let Some(mut until) = self.0.clone() else { return std::future::pending().await };
        loop {
            let end = *until.borrow_and_update();
            let Some(end) = end.filter(|end| Instant::now() < *end) else { return };
            tokio::select! {
                () = tokio::time::sleep_until(end.into()) => {}
                changed = until.changed() => if changed.is_err() {
                    // Nobody renews it any more.
                    tokio::time::sleep_until(end.into()).await;
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_closes_by_itself_unless_it_is_renewed() {
        let (keeper, gate) = gate();
        assert!(!gate.is_open() && Gate::default().is_open());
        keeper.open_until(Instant::now() + Duration::from_secs(3600));
        gate.opened().await;
        assert!(gate.is_open());
        keeper.open_until(Instant::now() + Duration::from_millis(20));
        gate.closed().await;
        assert!(!gate.is_open());
        keeper.open_until(Instant::now() + Duration::from_secs(3600));
        gate.opened().await;
        keeper.close();
        gate.closed().await;
        assert!(!gate.is_open());
    }
}
