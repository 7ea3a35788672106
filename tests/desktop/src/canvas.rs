//! A picture in memory, and the few shapes and letters that the desktop is drawn with.

use std::collections::HashMap;
use std::sync::Arc;

/// Bytes of a pixel: blue, green, red, unused.
pub const PIXEL_BYTES: usize = 4;

/// A colour without transparency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour {
    pub red: u8,
    pub green: u8,
    pub blue: u8,
}

impl Colour {
    pub const fn new(red: u8, green: u8, blue: u8) -> Self {
        Self { red, green, blue }
    }
}

/// A rectangle in pixels; may lie partly outside of a canvas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    pub x: i32,
    pub y: i32,
    pub width: i32,
    pub height: i32,
}

/// Pixels, row by row.
pub struct Canvas {
    pub width: i32,
    pub height: i32,
    pub pixels: Vec<u8>,
    glyphs: HashMap<(char, i32), Arc<[u8]>>,
}

impl Canvas {
    pub fn new(width: u16, height: u16) -> Self {
        Self {
            width: i32::from(width),
            height: i32::from(height),
            pixels: vec![0; usize::from(width) * usize::from(height) * PIXEL_BYTES],
            glyphs: HashMap::new(),
        }
    }

    /// Bytes of a row.
    pub fn stride(&self) -> usize {
        self.width as usize * PIXEL_BYTES
    }

    /// Mixes `colour` into a pixel; `cover` 0 leaves it, 255 replaces it.
    pub fn blend(&mut self, x: i32, y: i32, colour: Colour, cover: u8) {
        if cover == 0 || x < 0 || y < 0 || x >= self.width || y >= self.height {
            return;
        }
        let at = (y as usize * self.width as usize + x as usize) * PIXEL_BYTES;
        let cover = u32::from(cover);
        let mix = |old: u8, new: u8| {
            ((u32::from(old) * (255 - cover) + u32::from(new) * cover + 127) / 255) as u8
        };
        let pixel = &mut self.pixels[at..at + PIXEL_BYTES];
        pixel[0] = mix(pixel[0], colour.blue);
        pixel[1] = mix(pixel[1], colour.green);
        pixel[2] = mix(pixel[2], colour.red);
        pixel[3] = 255;
    }

    /// A filled rectangle with round corners.
    pub fn panel(&mut self, area: Area, radius: i32, colour: Colour, cover: u8) {
        for y in 0..area.height {
            for x in 0..area.width {
                // How far this pixel reaches into its corner, if it is in one at all.
                let into =
                    |at: i32, length: i32| (radius - at).max(at - (length - 1 - radius)).max(0);
                let (dx, dy) = (into(x, area.width) as f32, into(y, area.height) as f32);
                let inside = (radius as f32 + 0.5 - dx.hypot(dy)).clamp(0.0, 1.0);
                self.blend(
                    area.x + x,
                    area.y + y,
                    colour,
                    (f32::from(cover) * inside) as u8,
                );
            }
        }
    }

    /// A disc whose edge is `soft` pixels wide: 1 is crisp, the radius itself a glow.
    pub fn disc(&mut self, centre: (f32, f32), radius: f32, soft: f32, colour: Colour, cover: u8) {
        let (cx, cy) = centre;
        for y in (cy - radius).floor() as i32..=(cy + radius).ceil() as i32 {
            for x in (cx - radius).floor() as i32..=(cx + radius).ceil() as i32 {
                let distance = (x as f32 + 0.5 - cx).hypot(y as f32 + 0.5 - cy);
                let inside = ((radius - distance) / soft).clamp(0.0, 1.0);
                self.blend(x, y, colour, (f32::from(cover) * inside * inside) as u8);
            }
        }
    }

    /// A circle line `width` pixels wide.
    pub fn ring(&mut self, centre: (f32, f32), radius: f32, width: f32, colour: Colour, cover: u8) {
        let (cx, cy) = centre;
        let reach = radius + width;
        for y in (cy - reach).floor() as i32..=(cy + reach).ceil() as i32 {
            for x in (cx - reach).floor() as i32..=(cx + reach).ceil() as i32 {
                let distance = (x as f32 + 0.5 - cx).hypot(y as f32 + 0.5 - cy) - radius;
                let inside = (width - distance.abs()).clamp(0.0, 1.0);
                self.blend(x, y, colour, (f32::from(cover) * inside) as u8);
            }
        }
    }

    /// Text with its top left at `x`, `y`; a letter is `size` pixels high and `size + gap` apart.
    pub fn text(&mut self, at: (i32, i32), size: i32, gap: i32, colour: Colour, text: &str) {
        for (nth, character) in text.chars().enumerate() {
            if character.is_whitespace() {
                continue;
            }
            let glyph = self.glyph(character, size);
            let left = at.0 + nth as i32 * (size + gap);
            for (index, cover) in glyph.iter().enumerate() {
                let index = index as i32;
                self.blend(left + index % size, at.1 + index / size, colour, *cover);
            }
        }
    }

    fn glyph(&mut self, character: char, size: i32) -> Arc<[u8]> {
        // All that has no picture shares one: the cache has no more entries than the font.
        let character = if has_glyph(character) {
            character
        } else {
            char::REPLACEMENT_CHARACTER
        };
        let make = || {
            (0..size * size)
                .map(|at| cover(character, size, at % size, at / size))
                .collect()
        };
        Arc::clone(self.glyphs.entry((character, size)).or_insert_with(make))
    }
}

/// Width of `text` drawn with [`Canvas::text`].
pub fn text_width(text: &str, size: i32, gap: i32) -> i32 {
    text.chars().count() as i32 * (size + gap) - gap
}

/// True where the font has a picture of its own for `character`.
pub fn has_glyph(character: char) -> bool {
    character == ' ' || character.is_ascii_graphic() || ('\u{a1}'..='\u{ff}').contains(&character)
}

/// Stands for a character that the font does not have.
const BOX: [u8; 8] = [0x7e, 0x42, 0x42, 0x42, 0x42, 0x42, 0x7e, 0x00];

fn bitmap(character: char) -> [u8; 8] {
    let code = character as usize;
    match code {
        0x20..=0x7e => font8x8::legacy::BASIC_LEGACY[code],
        0xa0..=0xff => font8x8::legacy::LATIN_LEGACY[code - 0xa0],
        _ => BOX,
    }
}

/// How much of a pixel the letter covers: the 8 × 8 bitmap is enlarged smoothly, so that large
/// letters have round edges in place of steps.
fn cover(character: char, size: i32, x: i32, y: i32) -> u8 {
    let rows = bitmap(character);
    let dot = |column: i32, row: i32| -> f32 {
        let inside = (0..8).contains(&column) && (0..8).contains(&row);
        if inside && rows[row as usize] >> column & 1 == 1 {
            1.0
        } else {
            0.0
        }
    };
    let scale = 8.0 / size as f32;
    let (u, v) = (
        (x as f32 + 0.5) * scale - 0.5,
        (y as f32 + 0.5) * scale - 0.5,
    );
    let (column, row) = (u.floor(), v.floor());
    let (right, down) = (u - column, v - row);
    let (column, row) = (column as i32, row as i32);
    let upper = dot(column, row) * (1.0 - right) + dot(column + 1, row) * right;
    let lower = dot(column, row + 1) * (1.0 - right) + dot(column + 1, row + 1) * right;
    let value = upper * (1.0 - down) + lower * down;
    // The steeper the threshold, the crisper the edge; a step in the bitmap is `1 / scale` pixels.
    let steepness = (1.0 / scale).max(1.0);
    (((value - 0.45) * steepness + 0.5).clamp(0.0, 1.0) * 255.0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_change_pixels_and_spaces_do_not() {
        let mut canvas = Canvas::new(64, 32);
        let empty = canvas.pixels.clone();
        canvas.text((0, 0), 16, 0, Colour::new(255, 255, 255), "  ");
        assert_eq!(canvas.pixels, empty);
        canvas.text((0, 0), 16, 0, Colour::new(255, 255, 255), "A");
        let lit = canvas
            .pixels
            .chunks(PIXEL_BYTES)
            .filter(|pixel| pixel[0] > 128)
            .count();
        assert!((20..200).contains(&lit), "{lit} pixels");
    }

    #[test]
    fn characters_that_the_font_lacks_share_one_picture() {
        let mut canvas = Canvas::new(64, 32);
        let text: String = ('\u{4e00}'..'\u{5e00}').collect();
        canvas.text((0, 0), 16, 0, Colour::new(255, 255, 255), &text);
        assert_eq!(canvas.glyphs.len(), 1);
        assert!(canvas.pixels.iter().any(|byte| *byte > 128));
    }

    #[test]
    fn shapes_may_leave_the_canvas() {
        let mut canvas = Canvas::new(16, 16);
        let colour = Colour::new(1, 2, 3);
        canvas.panel(
            Area {
                x: -8,
                y: -8,
                width: 40,
                height: 40,
            },
            4,
            colour,
            255,
        );
        canvas.disc((16.0, -3.0), 9.0, 1.0, colour, 255);
        canvas.ring((0.0, 20.0), 9.0, 2.0, colour, 255);
        canvas.text((10, 10), 16, 2, colour, "edge\u{1f600}");
        assert_eq!(canvas.pixels.len(), 16 * 16 * PIXEL_BYTES);
    }
}
