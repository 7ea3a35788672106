//! One connection's view of the world: its size, its frames, and which tiles changed.

use std::collections::VecDeque;
use std::num::{NonZeroU16, NonZeroUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use ironrdp_displaycontrol::pdu::DisplayControlMonitorLayout;
use ironrdp_server::{
    BitmapUpdate, DesktopSize, DisplayUpdate, PixelFormat, RdpServerDisplay,
    RdpServerDisplayUpdates,
};

use crate::backdrop::backdrop;
use crate::canvas::{Canvas, PIXEL_BYTES};
use crate::lock;
use crate::scene::World;

/// Time between two frames.
const FRAME: Duration = Duration::from_millis(50);
/// Edge of the squares that are compared with the frame before.
const TILE: usize = 64;
const SIZE_DEFAULT: DesktopSize = DesktopSize {
    width: 1280,
    height: 800,
};
const EDGE_MIN: u16 = 320;
const EDGE_MAX: u16 = 4096;

/// The display of one connection.
pub struct View {
    world: Arc<Mutex<World>>,
    /// What the client wants; the frames follow.
    size: Arc<Mutex<DesktopSize>>,
}

impl View {
    pub fn new(world: Arc<Mutex<World>>) -> Self {
        Self {
            world,
            size: Arc::new(Mutex::new(SIZE_DEFAULT)),
        }
    }

    fn set_size(&self, width: u32, height: u32) -> DesktopSize {
        let within = |edge: u32| {
            u16::try_from(edge)
                .unwrap_or(EDGE_MAX)
                .clamp(EDGE_MIN, EDGE_MAX)
        };
        // [MS-RDPEDISP §2.2.2.2.1] The width must be even.
        let size = DesktopSize {
            width: within(width) & !1,
            height: within(height),
        };
        *self.size.lock().unwrap_or_else(PoisonError::into_inner) = size;
        size
    }
}

#[async_trait::async_trait]
impl RdpServerDisplay for View {
    async fn size(&mut self) -> DesktopSize {
        *self.size.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn request_initial_size(&mut self, client: DesktopSize) -> DesktopSize {
        self.set_size(u32::from(client.width), u32::from(client.height))
    }

    async fn updates(&mut self) -> Result<Box<dyn RdpServerDisplayUpdates>> {
        let size = self.size().await;
        Ok(Box::new(Frames::new(
            Arc::clone(&self.world),
            Arc::clone(&self.size),
            size,
        )))
    }

    fn request_layout(&mut self, layout: DisplayControlMonitorLayout) {
        if let Some(monitor) = layout.monitors().first() {
            let (width, height) = monitor.dimensions();
            self.set_size(width, height);
        }
    }
}

/// The frames of one view, until it is resized.
struct Frames {
    world: Arc<Mutex<World>>,
    wanted: Arc<Mutex<DesktopSize>>,
    size: DesktopSize,
    backdrop: Vec<u8>,
    canvas: Canvas,
    /// What the client has; empty before the first frame.
    sent: Vec<u8>,
    waiting: VecDeque<DisplayUpdate>,
    next_frame: Instant,
}

impl Frames {
    fn new(world: Arc<Mutex<World>>, wanted: Arc<Mutex<DesktopSize>>, size: DesktopSize) -> Self {
        Self {
            world,
            wanted,
            size,
            backdrop: backdrop(size.width, size.height),
            canvas: Canvas::new(size.width, size.height),
            sent: Vec::new(),
            waiting: VecDeque::new(),
            next_frame: Instant::now(),
        }
    }

    /// Paints a frame and queues what changed.
    fn paint(&mut self, now: Instant) {
        self.canvas.pixels.copy_from_slice(&self.backdrop);
        lock(&self.world).paint(&mut self.canvas, now);
        let stride = self.canvas.stride();
        let (width, height) = (usize::from(self.size.width), usize::from(self.size.height));
        let changes = if self.sent.is_empty() {
            vec![Tiles {
                x: 0,
                y: 0,
                width,
                height,
            }]
        } else {
            changed_tiles(&self.sent, &self.canvas.pixels, width, height)
        };
        for tiles in &changes {
            self.waiting
                .extend(update(&self.canvas.pixels, stride, tiles));
        }
        if !changes.is_empty() {
            self.sent.clone_from(&self.canvas.pixels);
        }
    }
}

#[async_trait::async_trait]
impl RdpServerDisplayUpdates for Frames {
    /// Cancel-safe: nothing is taken out of the queue before an await point.
    async fn next_update(&mut self) -> Result<Option<DisplayUpdate>> {
        loop {
            if let Some(update) = self.waiting.pop_front() {
                return Ok(Some(update));
            }
            tokio::time::sleep_until(self.next_frame.into()).await;
            let now = Instant::now();
            self.next_frame = now + FRAME;
            let wanted = *self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            if wanted != self.size {
                // The server asks for new frames of the new size after the client has followed.
                self.size = wanted;
                return Ok(Some(DisplayUpdate::Resize(wanted)));
            }
            self.paint(now);
        }
    }
}

/// Neighbouring tiles of one row that changed, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tiles {
    x: usize,
    y: usize,
    width: usize,
    height: usize,
}

fn changed_tiles(before: &[u8], after: &[u8], width: usize, height: usize) -> Vec<Tiles> {
    let mut changes: Vec<Tiles> = Vec::new();
    for y in (0..height).step_by(TILE) {
        let high = TILE.min(height - y);
        for x in (0..width).step_by(TILE) {
            let wide = TILE.min(width - x);
            let differs = (y..y + high).any(|row| {
                let start = (row * width + x) * PIXEL_BYTES;
                let end = start + wide * PIXEL_BYTES;
                before[start..end] != after[start..end]
            });
            if !differs {
                continue;
            }
            match changes.last_mut() {
                Some(last) if last.y == y && last.x + last.width == x => last.width += wide,
                _ => changes.push(Tiles {
                    x,
                    y,
                    width: wide,
                    height: high,
                }),
            }
        }
    }
    changes
}

fn update(pixels: &[u8], stride: usize, tiles: &Tiles) -> Option<DisplayUpdate> {
    let row_bytes = tiles.width * PIXEL_BYTES;
    let mut data = Vec::with_capacity(row_bytes * tiles.height);
    for row in tiles.y..tiles.y + tiles.height {
        let start = row * stride + tiles.x * PIXEL_BYTES;
        data.extend_from_slice(&pixels[start..start + row_bytes]);
    }
    Some(DisplayUpdate::Bitmap(BitmapUpdate {
        x: u16::try_from(tiles.x).ok()?,
        y: u16::try_from(tiles.y).ok()?,
        width: NonZeroU16::new(u16::try_from(tiles.width).ok()?)?,
        height: NonZeroU16::new(u16::try_from(tiles.height).ok()?)?,
        format: PixelFormat::BgrX32,
        data: Bytes::from(data),
        stride: NonZeroUsize::new(row_bytes)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changed_tiles_are_sent() {
        let (width, height) = (200, 130);
        let before = vec![0; width * height * PIXEL_BYTES];
        let check = |points: &[(usize, usize)], expected: &[(usize, usize, usize, usize)]| {
            let mut after = before.clone();
            for (x, y) in points {
                after[(y * width + x) * PIXEL_BYTES] = 1;
            }
            let found: Vec<_> = changed_tiles(&before, &after, width, height)
                .into_iter()
                .map(|tiles| (tiles.x, tiles.y, tiles.width, tiles.height))
                .collect();
            assert_eq!(found, expected, "{points:?}");
        };
        check(&[], &[]);
        check(&[(0, 0)], &[(0, 0, 64, 64)]);
        check(&[(63, 0), (64, 0)], &[(0, 0, 128, 64)]);
        check(&[(0, 0), (130, 0)], &[(0, 0, 64, 64), (128, 0, 64, 64)]);
        check(&[(199, 129)], &[(192, 128, 8, 2)]);
    }
}
