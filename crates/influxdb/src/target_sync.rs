//! Syncs the embedded store when a caller waits for durability: on a thread of its own, so that no line waits for
//! a sync on its way to the store. It takes no lines there.

use crate::lane::Lane;
use crate::notify::Notifier;
use crate::sender::{PAUSE_FIRST, PAUSE_LONGEST, delayed};
use graylogic_durable::caught;
use graylogic_store::Store;

/// What the thread works with.
pub(crate) struct TargetSync<'a> {
    pub(crate) lane: &'a Lane,
    pub(crate) notifier: &'a Notifier,
    pub(crate) store: Store,
}

impl TargetSync<'_> {
    /// Syncs the store whenever that is wanted, until the lane ends. After a panic it starts again.
    pub(crate) fn run(&self) {
        let mut pause = PAUSE_FIRST;
        while let Err(panic) = caught(|| self.carry()) {
            let reason = format!("the thread that syncs the store panicked and was restarted: {panic}");
            self.lane.panicked(&reason, pause);
            // The receiver of the report may panic as well.
            let _panics_again = caught(|| delayed(self.lane, self.notifier, &reason));
            if self.lane.queue.rest(pause) {
                return;
            }
            pause = (pause * 2).min(PAUSE_LONGEST);
        }
    }

    fn carry(&self) {
        while let Some(lines) = self.lane.queue.next_target_sync() {
            if !self.sync() {
                return;
            }
            self.lane.queue.made_durable(lines);
        }
    }

    /// However long it takes; returns whether it was done before the lane was abandoned.
    fn sync(&self) -> bool {
        let (mut pause, mut failed) = (PAUSE_FIRST, false);
        while let Err(error) = self.store.sync() {
            let why = error.to_string();
            self.lane.troubled(&why, None, Some(pause));
            if !std::mem::replace(&mut failed, true) {
                delayed(self.lane, self.notifier, &why);
            }
            if self.lane.queue.rest(pause) {
                return false;
            }
            pause = (pause * 2).min(PAUSE_LONGEST);
        }
        if failed {
            self.lane.status().trouble = None;
        }
        true
    }
}
