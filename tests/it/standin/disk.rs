//! A disk that loses what was not synced, tears writes, runs full and is pulled.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use nodegauge::push::log::medium::{Marks, Medium};
use redb::StorageBackend;
use redb::backends::InMemoryBackend;

const BLOCK: u64 = 4096;

#[derive(Debug, Clone)]
enum Op {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Debug, Default)]
struct Platter {
    /// What a power cut leaves in any case.
    synced: Vec<u8>,
    /// What the process reads.
    current: Vec<u8>,
    unsynced: Vec<Op>,
    /// Calls that change something until the process is dead; then all fail.
    left: Option<u64>,
    /// Length beyond which there is no room.
    room: Option<u64>,
    /// No block can be had that the file does not have: those ever written, while
    /// the rest of it is a hole.
    full: bool,
    blocks: BTreeSet<u64>,
    longest: u64,
    syncs: u64,
    marks: Marks,
    /// What was last set aside.
    aside: Vec<u8>,
}

impl Platter {
    fn change(&mut self) -> io::Result<()> {
        match &mut self.left {
            Some(0) => Err(io::Error::other("dead")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

fn apply(content: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Write(offset, data) => {
            let offset = usize::try_from(*offset).unwrap();
            content.resize(content.len().max(offset + data.len()), 0);
            content[offset..offset + data.len()].copy_from_slice(data);
        }
        Op::Length(length) => content.resize(usize::try_from(*length).unwrap(), 0),
    }
}

/// The disk; its clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<Platter>>);

impl Disk {
    pub(crate) fn medium(&self) -> Option<Box<dyn Medium>> {
        Some(Box::new(self.clone()))
    }

    /// Lets so many more changes through before the process is dead.
    pub(crate) fn die_after(&self, changes: u64) {
        self.0.lock().unwrap().left = Some(changes);
    }

    /// Until this is dropped every call hangs.
    pub(crate) fn hang(&self) -> impl Drop + '_ {
        self.0.lock().unwrap()
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.0.lock().unwrap().left == Some(0)
    }

    pub(crate) fn fill(&self, full: bool) {
        self.0.lock().unwrap().full = full;
    }

    pub(crate) fn room(&self, room: Option<u64>) {
        self.0.lock().unwrap().room = room;
    }

    /// Cuts so many bytes off the end, of what is synced.
    pub(crate) fn cut(&self, bytes: u64) {
        let mut platter = self.0.lock().unwrap();
        let left = platter.current.len().saturating_sub(usize::try_from(bytes).unwrap());
        platter.current.truncate(left);
        platter.synced = platter.current.clone();
        platter.unsynced.clear();
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.0.lock().unwrap().syncs
    }

    pub(crate) fn longest(&self) -> u64 {
        self.0.lock().unwrap().longest
    }

    /// The power is back after a kill or a cut: each
    /// change that was not synced is there, is not, or is there in part.
    pub(crate) fn restart(&self, mut chance: impl FnMut(u64) -> u64, power_cut: bool) {
        let mut platter = self.0.lock().unwrap();
        let unsynced = std::mem::take(&mut platter.unsynced);
        if power_cut {
            let mut content = std::mem::take(&mut platter.synced);
            for op in unsynced {
                match (chance(3), op) {
                    (0, _) => {}
                    (1, Op::Write(offset, data)) => {
                        let sectors = u64::try_from(data.len()).unwrap().div_ceil(512);
                        let end = usize::try_from(chance(sectors + 1) * 512).unwrap().min(data.len());
                        apply(&mut content, &Op::Write(offset, data[..end].to_vec()));
                    }
                    (_, op) => apply(&mut content, &op),
                }
            }
            platter.current = content;
        }
        platter.synced = platter.current.clone();
        platter.left = None;
    }
}

impl Medium for Disk {
    fn open(&mut self) -> io::Result<Arc<dyn StorageBackend>> {
        Ok(Arc::new(self.clone()))
    }

    fn reserve(&mut self, len: u64) -> io::Result<()> {
        let platter = self.0.lock().unwrap();
        match platter.full || platter.room.is_some_and(|room| len > room) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }

    fn set_aside(&mut self, _: &str, now_ms: u64) -> io::Result<PathBuf> {
        let mut platter = self.0.lock().unwrap();
        platter.change()?;
        platter.aside = std::mem::take(&mut platter.current);
        platter.blocks.clear();
        platter.synced.clear();
        platter.unsynced.clear();
        Ok(PathBuf::from(format!("aside-{now_ms}")))
    }

    fn look(&mut self, _: &Path) -> io::Result<Arc<dyn StorageBackend>> {
        let content = self.0.lock().unwrap().aside.clone();
        let aside = InMemoryBackend::new();
        aside.set_len(u64::try_from(content.len()).unwrap())?;
        aside.write(0, &content)?;
        Ok(Arc::new(aside))
    }

    fn marks(&self) -> Marks {
        self.0.lock().unwrap().marks
    }

    fn mark(&mut self, marks: Marks) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        platter.change()?;
        platter.marks = marks;
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(u64::try_from(self.0.lock().unwrap().current.len()).unwrap())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.0.lock().unwrap();
        let offset = usize::try_from(offset).unwrap();
        let end = offset.checked_add(out.len());
        let found = end.and_then(|end| platter.current.get(offset..end));
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        let grows = len > u64::try_from(platter.current.len()).unwrap();
        if grows && platter.room.is_some_and(|room| len > room) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        platter.change()?;
        platter.blocks.retain(|block| *block < len.div_ceil(BLOCK));
        platter.longest = platter.longest.max(len);
        let op = Op::Length(len);
        apply(&mut platter.current, &op);
        platter.unsynced.push(op);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        platter.change()?;
        platter.syncs += 1;
        let Platter { synced, unsynced, .. } = &mut *platter;
        for op in unsynced.drain(..) {
            apply(synced, &op);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        let end = offset + u64::try_from(data.len()).unwrap();
        let blocks = offset / BLOCK..end.div_ceil(BLOCK);
        if platter.full && !blocks.clone().all(|block| platter.blocks.contains(&block)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        platter.change()?;
        platter.blocks.extend(blocks);
        let op = Op::Write(offset, data.to_vec());
        apply(&mut platter.current, &op);
        platter.unsynced.push(op);
        Ok(())
    }
}
