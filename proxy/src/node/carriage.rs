//! A flow that this core's relay carries, as its session sees it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use postern_engine::relay;
use postern_relay::{Ended, Goodbye, Report, Traffic};
use postern_session::Seat;

/// Resolves when the flow is over; dropping it cuts the flow off.
pub(super) struct Carriage {
    passage: Passage,
    /// The flow's place among those that hold no descriptors.
    _place: Option<Seat>,
}

enum Passage {
    Carried(relay::Carriage),
    /// Its sockets could not be given away.
    Lost,
}

impl Carriage {
    pub(super) fn of(carriage: relay::Carriage, place: Option<Seat>) -> Self {
        Self {
            passage: Passage::Carried(carriage),
            _place: place,
        }
    }

    /// One that has ended before it began.
    pub(super) fn lost() -> Self {
        Self {
            passage: Passage::Lost,
            _place: None,
        }
    }
}

impl Future for Carriage {
    type Output = Report;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Report> {
        match &mut self.passage {
            Passage::Carried(carriage) => Pin::new(carriage).poll(cx),
            Passage::Lost => Poll::Ready(Report {
                ended: Ended::TargetLost,
                traffic: Traffic::default(),
                streams: None,
            }),
        }
    }
}

impl postern_session::Carriage for Carriage {
    fn stop(&self, goodbye: Goodbye) {
        if let Passage::Carried(carriage) = &self.passage {
            carriage.stop(goodbye);
        }
    }
}
