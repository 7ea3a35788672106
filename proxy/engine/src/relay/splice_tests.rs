//! Conduits between real sockets.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};

use super::*;

struct Lane {
    pipes: Pipes,
    conduit: Conduit,
    source: UnixStream,
    sink: UnixStream,
    /// The peers' ends.
    writer: UnixStream,
    reader: UnixStream,
}

impl Lane {
    fn new() -> Self {
        let (writer, source) = UnixStream::pair().unwrap();
        let (sink, reader) = UnixStream::pair().unwrap();
        writer.set_nonblocking(true).unwrap();
        reader.set_nonblocking(true).unwrap();
        let mut pipes = Pipes::default();
        let conduit = pipes
            .lend(source.as_fd(), sink.as_fd())
            .expect("there are pipes");
        Self {
            pipes,
            conduit,
            source,
            sink,
            writer,
            reader,
        }
    }

    fn pump(&mut self) -> Progress {
        self.conduit
            .pump(self.source.as_fd(), self.sink.as_fd(), ITERATIONS_MAX)
    }

    /// Writes until the socket takes no more; how much it took.
    fn fill(&mut self) -> usize {
        let mut filled = 0;
        while let Ok(bytes) = self.writer.write(&[7; 65536]) {
            filled += bytes;
        }
        filled
    }

    fn drain(&mut self) -> usize {
        let mut drained = 0;
        let mut buffer = [0; 65536];
        while let Ok(bytes) = self.reader.read(&mut buffer) {
            if bytes == 0 {
                break;
            }
            drained += bytes;
        }
        drained
    }
}

fn progress(taken: usize, moved: usize, state: State) -> Progress {
    Progress {
        taken,
        moved,
        state,
    }
}

#[test]
fn a_conduit_tells_what_it_waits_for() {
    let mut lane = Lane::new();
    assert_eq!(lane.pump(), progress(0, 0, State::Source));
    lane.writer.write_all(b"hello").unwrap();
    assert_eq!(lane.pump(), progress(5, 5, State::Source));
    assert_eq!(lane.drain(), 5);

    let mut written = 0;
    let mut moved = 0;
    loop {
        written += lane.fill();
        let pumped = lane.pump();
        moved += pumped.moved;
        if pumped.state == State::Sink {
            break;
        }
    }
    assert!(
        !lane.conduit.is_empty(),
        "what the sink did not take is in the pipe"
    );
    let mut read = 0;
    while read < written {
        read += lane.drain();
        moved += lane.pump().moved;
    }
    assert_eq!((moved, read), (written, written));
    assert!(lane.conduit.is_empty());
}

#[test]
fn the_end_comes_after_the_last_byte() {
    let mut lane = Lane::new();
    lane.writer.write_all(b"last words").unwrap();
    drop(std::mem::replace(
        &mut lane.writer,
        UnixStream::pair().unwrap().0,
    ));
    assert_eq!(lane.pump(), progress(10, 10, State::Finished));
    assert_eq!(lane.drain(), 10);
}

#[test]
fn a_sink_that_is_gone_is_broken() {
    let mut lane = Lane::new();
    drop(std::mem::replace(
        &mut lane.reader,
        UnixStream::pair().unwrap().0,
    ));
    lane.writer.write_all(b"nobody hears this").unwrap();
    assert_eq!(lane.pump(), progress(17, 0, State::SinkBroken));
}

#[test]
fn what_can_not_be_spliced_is_unfit() {
    // A socket that listens has no bytes to give; one that is connected always has, or ends.
    let folder = tempfile::tempdir().unwrap();
    let source = UnixListener::bind(folder.path().join("socket")).unwrap();
    let (sink, _peer) = UnixStream::pair().unwrap();
    let mut pipes = Pipes::default();
    let mut conduit = pipes
        .lend(source.as_fd(), sink.as_fd())
        .expect("there are pipes");
    let pumped = conduit.pump(source.as_fd(), sink.as_fd(), ITERATIONS_MAX);
    assert_eq!(pumped, progress(0, 0, State::Unfit));
}

#[test]
fn an_empty_pipe_is_lent_again_and_a_full_one_closed() {
    let mut lane = Lane::new();
    let pipe = lane.conduit.pipe.writer.as_raw_fd();
    lane.pipes.give_back(lane.conduit);
    assert_eq!(lane.pipes.lent, 0);
    let mut conduit = lane
        .pipes
        .lend(lane.source.as_fd(), lane.sink.as_fd())
        .unwrap();
    assert_eq!(conduit.pipe.writer.as_raw_fd(), pipe);
    assert_eq!(lane.pipes.free.len(), 0);

    conduit.inside = 1;
    lane.pipes.give_back(conduit);
    assert_eq!((lane.pipes.lent, lane.pipes.free.len()), (0, 0));
}

#[test]
fn without_a_pipe_of_use_nothing_is_lent_and_that_is_counted() {
    let (left, right) = UnixStream::pair().unwrap();
    let mut pipes = Pipes {
        lent: PIPES_MAX,
        ..Pipes::default()
    };
    let refused = pipes.lend(left.as_fd(), right.as_fd());
    assert_eq!(refused.err(), Some(Refusal::Exhausted));

    let mut small = Pipe::new().unwrap();
    small.bytes = PIPE_BYTES_MIN / 2;
    let mut pipes = Pipes {
        free: vec![small],
        ..Pipes::default()
    };
    let refused = pipes.lend(left.as_fd(), right.as_fd());
    assert_eq!(refused.err(), Some(Refusal::Kernel));
    assert_eq!((pipes.lendings(), pipes.lent), ((0, 1), 0));
}
