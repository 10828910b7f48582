//! Has the reader thread look as soon as cgroups come or go, so that at the next tick their
//! names are there, and as soon as containers end, before they are removed. Where nothing
//! tells, ticks find them.

use std::os::fd::{AsFd as _, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::collect::sampler::Sampler;
use crate::publish::{Looker, Request};

/// Shortest time between two looks for new cgroups.
const LOOKS_APART: Duration = Duration::from_millis(20);

/// The same for ends: a runtime removes a container tens of milliseconds after.
const ENDS_APART: Duration = Duration::from_millis(2);

/// How often it is looked whether there is anyone to tell.
const GONE: Duration = Duration::from_secs(1);

/// Starts the thread, if the kernel tells anything.
pub(super) fn start(sampler: &Sampler, looker: Looker) {
    let (tree, ends) = (sampler.readable(), sampler.ends_readable());
    if tree.is_none() && ends.is_none() {
        return;
    }
    let run = move || while turn(tree.as_ref(), ends.as_ref(), &looker) {};
    if let Err(error) = thread::Builder::new().name("watch".to_owned()).spawn(run) {
        tracing::warn!(%error, "no thread to watch for new cgroups: names may come one tick later");
    }
}

/// Waits for one thing and tells it; false when nobody listens any more. The reader thread
/// takes what there is meanwhile: a storm costs it no more than these times say.
fn turn(tree: Option<&OwnedFd>, ends: Option<&OwnedFd>, looker: &Looker) -> bool {
    let [of_tree, of_ends] = wait([tree, ends], GONE);
    if of_ends && !looker.look(Request::Ends) {
        return false;
    }
    if of_tree {
        if !looker.look(Request::Look) {
            return false;
        }
        let until = Instant::now() + LOOKS_APART;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            let [_, of_ends] = wait([None, ends], left);
            if of_ends {
                if !looker.look(Request::Ends) {
                    return false;
                }
                thread::park_timeout(ENDS_APART);
            }
        }
    } else if of_ends {
        thread::park_timeout(ENDS_APART);
    }
    !looker.is_gone()
}

/// Which of these became readable within `limit`.
fn wait(what: [Option<&OwnedFd>; 2], limit: Duration) -> [bool; 2] {
    let limit = PollTimeout::try_from(limit.as_millis().max(1)).unwrap_or(PollTimeout::from(1000_u16));
    let asked = what.into_iter().flatten();
    let mut descriptors: Vec<PollFd<'_>> =
        asked.map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
    if descriptors.is_empty() {
        thread::park_timeout(limit.as_millis().map_or(GONE, |ms| Duration::from_millis(ms.into())));
        return [false; 2];
    }
    if poll(&mut descriptors, limit).is_err() {
        // Interrupted, or out of memory for a moment.
        thread::park_timeout(ENDS_APART);
        return [false; 2];
    }
    let mut found = descriptors.iter().map(|d| d.any().unwrap_or(false));
    what.map(|fd| fd.is_some() && found.next().unwrap_or(false))
}
