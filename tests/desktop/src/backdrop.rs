//! What never changes on the desktop, painted once a size.

use crate::canvas::{Area, Canvas, Colour, PIXEL_BYTES, text_width};

/// What is written.
pub const INK: Colour = Colour::new(236, 240, 248);
/// What is written beside it.
pub const QUIET: Colour = Colour::new(160, 176, 204);
const NIGHT: Colour = Colour::new(14, 18, 34);

/// Dusk with a few soft lights, the title, the windows.
pub fn backdrop(width: u16, height: u16) -> Vec<u8> {
    let mut canvas = Canvas::new(width, height);
    let (wide, high) = (f32::from(width), f32::from(height));
    let stride = canvas.stride();
    for (y, row) in canvas.pixels.chunks_exact_mut(stride).enumerate() {
        for (x, pixel) in row.chunks_exact_mut(PIXEL_BYTES).enumerate() {
            let (u, v) = (x as f32 / wide, y as f32 / high);
            let wave = ((u * 4.2 + v * 2.0).sin() + (u * 2.3 - v * 3.1 + 1.7).cos()) * 0.5;
            let dusk = (v + wave * 0.10).clamp(0.0, 1.0);
            let mix = |from: f32, to: f32| (from + (to - from) * dusk).clamp(0.0, 255.0) as u8;
            pixel.copy_from_slice(&[mix(74.0, 128.0), mix(34.0, 92.0), mix(28.0, 58.0), 255]);
        }
    }
    let glow = |canvas: &mut Canvas, x: f32, y: f32, radius: f32, colour: Colour, cover: u8| {
        let radius = radius * wide.min(high);
        canvas.disc((x * wide, y * high), radius, radius, colour, cover);
    };
    glow(&mut canvas, 0.18, 0.95, 0.70, Colour::new(86, 176, 190), 90);
    glow(
        &mut canvas,
        0.88,
        0.20,
        0.55,
        Colour::new(150, 110, 220),
        80,
    );
    glow(
        &mut canvas,
        0.60,
        1.05,
        0.50,
        Colour::new(240, 170, 120),
        70,
    );
    let bar = Area {
        x: 0,
        y: canvas.height - 36,
        width: canvas.width,
        height: 36,
    };
    canvas.panel(bar, 0, NIGHT, 150);
    paint_title(&mut canvas);
    paint_window(&mut canvas);
    canvas.pixels
}

/// Where the notes are; tests of the picture look there.
pub fn note_area(width: i32, height: i32) -> Area {
    let wide = (width * 5 / 8).clamp(200, 860).min(width - 20);
    let top = height * 2 / 5;
    Area {
        x: (width - wide) / 2,
        y: top,
        width: wide,
        height: (height - top - 76).max(80),
    }
}

fn paint_title(canvas: &mut Canvas) {
    let title = "POSTERN";
    let size = (canvas.width / 14).clamp(24, 96);
    let gap = size / 6;
    let left = (canvas.width - text_width(title, size, gap)) / 2;
    let top = canvas.height * 2 / 5 - size * 2;
    canvas.text((left, top), size, gap, INK, title);
    let words = "a desktop behind a door";
    let small = (size / 5).clamp(10, 16);
    let left = (canvas.width - text_width(words, small, 2)) / 2;
    canvas.text((left, top + size + small), small, 2, QUIET, words);
}

/// The window of the notes, without what is written in it.
fn paint_window(canvas: &mut Canvas) {
    let area = note_area(canvas.width, canvas.height);
    let shadow = Area {
        x: area.x + 4,
        y: area.y + 8,
        ..area
    };
    canvas.panel(shadow, 12, Colour::new(0, 0, 0), 60);
    canvas.panel(area, 12, NIGHT, 214);
    for (nth, colour) in [(255, 106, 96), (250, 190, 80), (92, 200, 120)]
        .into_iter()
        .enumerate()
    {
        let centre = ((area.x + 22 + 20 * nth as i32) as f32, (area.y + 20) as f32);
        canvas.disc(
            centre,
            6.5,
            1.5,
            Colour::new(colour.0, colour.1, colour.2),
            255,
        );
    }
    let name = "Notes";
    let left = area.x + (area.width - text_width(name, 12, 0)) / 2;
    canvas.text((left, area.y + 14), 12, 0, QUIET, name);
}
