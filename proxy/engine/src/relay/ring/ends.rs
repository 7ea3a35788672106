//! How the sockets of a flow end: our side of one, then both, and what the kernel still held of them.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};

use postern_relay::Leg;

use super::operation::{Kind, Tag};
use super::{Running, sockets};
use crate::relay::machine::Key;
use crate::settle::settle;

impl Running<'_> {
    pub(super) fn shut_down(&mut self, key: Key, leg: Leg) -> io::Result<()> {
        let place = self.sockets.get_mut(key);
        let place = place.expect("a flow that wants something has sockets");
        if let Some(descriptor) = place.descriptor(leg) {
            // SAFETY: shutdown takes plain integers; the descriptor is open while it is borrowed.
            // A peer that is gone needs no word.
            unsafe { libc::shutdown(descriptor.as_raw_fd(), libc::SHUT_WR) };
            return Ok(());
        }
        // Its socket must stay in the table until then: the kernel looks it up late.
        place.awaited += 1;
        let entry = place
            .target(leg)
            .shut_down(Tag::new(Kind::ShutDown, key, leg));
        self.ask(&entry)
    }

    pub(super) fn close(&mut self, key: Key) -> io::Result<()> {
        for leg in Leg::BOTH {
            self.leave_lane(key, leg)?;
            self.settle(key, leg)?;
        }
        if let Some(place) = self.sockets.get_mut(key) {
            place.is_closing = true;
        }
        self.close_if_done(key);
        Ok(())
    }

    /// Counts what the kernel still holds of a socket that is to be closed.
    fn settle(&mut self, key: Key, leg: Leg) -> io::Result<()> {
        let Some(place) = self.sockets.get_mut(key) else {
            return Ok(());
        };
        if let Some(descriptor) = place.descriptor(leg) {
            self.machine.settle(key, leg, settle(descriptor));
        } else if self.has_install
            && let Some(entry) = place
                .target(leg)
                .install(Tag::new(Kind::Descriptor, key, leg))
        {
            place.awaited += 1;
            self.ask(&entry)?;
        }
        Ok(())
    }

    /// A socket of the table has a descriptor for a moment.
    pub(super) fn settled(&mut self, key: Key, leg: Leg, answer: i32) {
        if answer >= 0 {
            // SAFETY: the kernel has just made this descriptor for us alone.
            let socket = unsafe { OwnedFd::from_raw_fd(answer) };
            self.machine.settle(key, leg, settle(socket.as_fd()));
        } else {
            let error = io::Error::from_raw_os_error(-answer);
            tracing::debug!(%error, "what the kernel holds of a socket can't be counted");
        }
        self.answered(key);
    }

    fn close_if_done(&mut self, key: Key) {
        let is_done = |place: &sockets::Place| place.is_closing && place.awaited == 0;
        if self.sockets.get(key).is_some_and(is_done) {
            self.sockets.close(key, &self.submitter);
            self.desk.close(&mut self.machine, key);
        }
    }

    pub(super) fn answered(&mut self, key: Key) {
        if let Some(place) = self.sockets.get_mut(key) {
            place.awaited -= 1;
        }
        self.close_if_done(key);
    }
}
