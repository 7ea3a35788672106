//! What the desktop shows: the world that everybody shares, and how it is painted.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::backdrop::{INK, QUIET, note_area};
use crate::canvas::{Area, Canvas, Colour, has_glyph, text_width};

/// Characters that the notes keep; the oldest go first.
pub const NOTE_CHARACTERS_MAX: usize = 2_000;
/// Marks of clicks that stay on the desktop.
const MARKS_MAX: usize = 48;
/// Points of the pointer's trail.
const TRAIL_POINTS_MAX: usize = 24;
/// How long the pointer's trail stays.
const TRAIL_AGE_MAX: Duration = Duration::from_millis(600);
/// How long the ring around a click grows.
const RIPPLE_AGE_MAX: Duration = Duration::from_millis(700);
/// How long the notes say what was just done.
const WORDS_AGE_MAX: Duration = Duration::from_secs(8);
/// Below this height the notes have no line for it.
const WORDS_WINDOW_HEIGHT_MIN: i32 = 120;

const AMBER: Colour = Colour::new(255, 196, 104);
const MARKED: Colour = Colour::new(48, 76, 140);
const NOTE_LETTER: i32 = 16;
const NOTE_LINE: i32 = 24;

/// Everything that input changes.
pub struct World {
    started: Instant,
    note: String,
    /// All of the note is selected: what comes next replaces it.
    selected: bool,
    words: Option<(String, Instant)>,
    pointer: (i32, i32),
    trail: VecDeque<(i32, i32, Instant)>,
    marks: VecDeque<(i32, i32, Instant)>,
    keys: u64,
    clicks: u64,
}

impl Default for World {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            note: String::new(),
            selected: false,
            words: None,
            pointer: (0, 0),
            trail: VecDeque::new(),
            marks: VecDeque::new(),
            keys: 0,
            clicks: 0,
        }
    }
}

impl World {
    pub fn key_pressed(&mut self) {
        self.keys += 1;
    }

    /// Takes a character into the notes; `\u{8}` removes the last one.
    pub fn typed(&mut self, character: char) {
        if has_glyph(character) || matches!(character, '\u{8}' | '\r' | '\n' | '\t') {
            let replaced = self.replace_selection();
            if !(replaced && character == '\u{8}') {
                self.write(character);
            }
        }
        self.shorten();
    }

    /// Takes a text from the client's clipboard into the notes; an empty one changes nothing.
    pub fn pasted(&mut self, text: &str, now: Instant) {
        if text.is_empty() {
            self.say("nothing to paste".to_owned(), now);
            return;
        }
        self.replace_selection();
        for character in text.chars() {
            if !character.is_control() || matches!(character, '\n' | '\t') {
                self.note.push(character);
            }
        }
        self.shorten();
        self.say(format!("pasted {}", counted(text)), now);
    }

    /// The text for the client's clipboard: all of it, there is no smaller selection.
    pub fn copied(&mut self, now: Instant) -> Option<String> {
        if self.note.is_empty() {
            self.say("nothing to copy".to_owned(), now);
            return None;
        }
        self.say(format!("copied {}", counted(&self.note)), now);
        Some(self.note.clone())
    }

    pub fn select(&mut self) {
        self.selected = !self.note.is_empty();
    }

    /// Tells in the notes' window what was just done.
    pub fn say(&mut self, words: String, now: Instant) {
        self.words = Some((words, now));
    }

    fn replace_selection(&mut self) -> bool {
        let selected = std::mem::take(&mut self.selected);
        if selected {
            self.note.clear();
        }
        selected
    }

    fn write(&mut self, character: char) {
        match character {
            '\u{8}' => {
                self.note.pop();
            }
            '\r' | '\n' => self.note.push('\n'),
            '\t' => self.note.push_str("    "),
            _ => self.note.push(character),
        }
    }

    fn shorten(&mut self) {
        let excess = self
            .note
            .chars()
            .count()
            .saturating_sub(NOTE_CHARACTERS_MAX);
        if let Some((at, _)) = self.note.char_indices().nth(excess) {
            self.note.drain(..at);
        }
    }

    pub fn pointer_moved(&mut self, x: i32, y: i32) {
        self.pointer = (x, y);
        self.trail.push_back((x, y, Instant::now()));
        if self.trail.len() > TRAIL_POINTS_MAX {
            self.trail.pop_front();
        }
    }

    pub fn clicked(&mut self) {
        self.clicks += 1;
        self.selected = false;
        self.marks
            .push_back((self.pointer.0, self.pointer.1, Instant::now()));
        if self.marks.len() > MARKS_MAX {
            self.marks.pop_front();
        }
    }

    /// Paints everything that moves or changes over a copy of the backdrop.
    pub fn paint(&self, canvas: &mut Canvas, now: Instant) {
        self.paint_lantern(canvas, now);
        paint_clock(canvas);
        self.paint_note(canvas, now);
        self.paint_words(canvas, now);
        self.paint_footer(canvas);
        self.paint_pointer(canvas, now);
    }

    /// A light that wanders from edge to edge.
    fn paint_lantern(&self, canvas: &mut Canvas, now: Instant) {
        let seconds = now.duration_since(self.started).as_secs_f32();
        let between = |speed: f32, length: i32| {
            let room = (length as f32 - 120.0).max(1.0);
            let way = (seconds * speed) % (2.0 * room);
            60.0 + if way < room { way } else { 2.0 * room - way }
        };
        let centre = (between(52.0, canvas.width), between(34.0, canvas.height));
        canvas.disc(centre, 46.0, 46.0, AMBER, 110);
        canvas.disc(centre, 15.0, 2.0, Colour::new(255, 224, 168), 255);
    }

    fn paint_note(&self, canvas: &mut Canvas, now: Instant) {
        let area = note_area(canvas.width, canvas.height);
        let columns = ((area.width - 40) / NOTE_LETTER).max(1) as usize;
        let foot = area.height >= WORDS_WINDOW_HEIGHT_MIN;
        let rows = ((area.height - if foot { 76 } else { 60 }) / NOTE_LINE).max(1) as usize;
        let (left, top) = (area.x + 20, area.y + 48);
        if self.note.is_empty() {
            canvas.text(
                (left, top),
                NOTE_LETTER,
                0,
                Colour::new(92, 106, 138),
                "Type something.",
            );
        }
        let lines = wrap(&self.note, columns);
        let shown = &lines[lines.len().saturating_sub(rows)..];
        for (nth, line) in shown.iter().enumerate() {
            if self.selected {
                let marked = Area {
                    x: left - 2,
                    y: top + nth as i32 * NOTE_LINE - 4,
                    width: line.chars().count() as i32 * NOTE_LETTER + 4,
                    height: NOTE_LINE,
                };
                canvas.panel(marked, 0, MARKED, 255);
            }
            canvas.text(
                (left, top + nth as i32 * NOTE_LINE),
                NOTE_LETTER,
                0,
                INK,
                line,
            );
        }
        let half_seconds = now.duration_since(self.started).as_millis() / 500;
        let blink = half_seconds.is_multiple_of(2);
        if let (Some(last), true) = (shown.last(), blink) {
            let caret = Area {
                x: left + last.chars().count() as i32 * NOTE_LETTER,
                y: top + (shown.len() as i32 - 1) * NOTE_LINE - 2,
                width: 2,
                height: NOTE_LETTER + 4,
            };
            canvas.panel(caret, 0, AMBER, 255);
        }
    }

    fn paint_words(&self, canvas: &mut Canvas, now: Instant) {
        let area = note_area(canvas.width, canvas.height);
        if area.height < WORDS_WINDOW_HEIGHT_MIN {
            return;
        }
        if let Some((words, at)) = &self.words
            && now.duration_since(*at) < WORDS_AGE_MAX
        {
            let at = (area.x + 20, area.y + area.height - 24);
            canvas.text(at, 12, 0, AMBER, words);
        }
    }

    fn paint_footer(&self, canvas: &mut Canvas) {
        let (x, y) = self.pointer;
        let text = format!(
            "keys {}   clicks {}   pointer {x},{y}",
            self.keys, self.clicks
        );
        canvas.text((20, canvas.height - 24), 12, 0, QUIET, &text);
    }

    fn paint_pointer(&self, canvas: &mut Canvas, now: Instant) {
        for (nth, (x, y, at)) in self.marks.iter().enumerate() {
            let centre = (*x as f32, *y as f32);
            let colour = [
                AMBER,
                Colour::new(122, 204, 255),
                Colour::new(196, 156, 255),
            ][nth % 3];
            canvas.disc(centre, 7.0, 2.0, colour, 230);
            let age = now.duration_since(*at);
            if age < RIPPLE_AGE_MAX {
                let way = age.as_secs_f32() / RIPPLE_AGE_MAX.as_secs_f32();
                canvas.ring(
                    centre,
                    10.0 + 34.0 * way,
                    2.0,
                    colour,
                    (220.0 * (1.0 - way)) as u8,
                );
            }
        }
        for (x, y, at) in &self.trail {
            let age = now.duration_since(*at);
            if age < TRAIL_AGE_MAX {
                let left = 1.0 - age.as_secs_f32() / TRAIL_AGE_MAX.as_secs_f32();
                canvas.disc(
                    (*x as f32, *y as f32),
                    2.0 + 5.0 * left,
                    3.0,
                    INK,
                    (150.0 * left) as u8,
                );
            }
        }
    }
}

fn counted(text: &str) -> String {
    match text.chars().count() {
        1 => "1 character".to_owned(),
        count => format!("{count} characters"),
    }
}

fn paint_clock(canvas: &mut Canvas) {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    let text = format!("{hours:02}:{minutes:02}:{:02}", seconds % 60);
    let left = canvas.width - text_width(&text, 24, 0) - 24;
    canvas.text((left, 24), 24, 0, INK, &text);
    canvas.text(
        (canvas.width - text_width("UTC", 12, 0) - 24, 54),
        12,
        0,
        QUIET,
        "UTC",
    );
}

/// Breaks the notes into lines of at most `columns` characters; there is always one.
fn wrap(note: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for line in note.split('\n') {
        let characters: Vec<char> = line.chars().collect();
        if characters.is_empty() {
            lines.push(String::new());
        }
        lines.extend(
            characters
                .chunks(columns)
                .map(|piece| piece.iter().collect::<String>()),
        );
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backdrop::backdrop;

    fn picture(world: &World, now: Instant) -> Vec<u8> {
        let mut canvas = Canvas::new(640, 480);
        canvas.pixels = backdrop(640, 480);
        world.paint(&mut canvas, now);
        canvas.pixels
    }

    #[test]
    fn typed_text_appears_in_the_notes() {
        let mut world = World::default();
        let now = Instant::now();
        let before = picture(&world, now);
        "hello".chars().for_each(|character| world.typed(character));
        let after = picture(&world, now);
        let area = note_area(640, 480);
        let changed: Vec<_> = (0..640 * 480)
            .filter(|at| before[at * 4] != after[at * 4])
            .collect();
        assert!(changed.len() > 100);
        assert!(changed.iter().all(|at| {
            let (x, y) = ((at % 640) as i32, (at / 640) as i32);
            (area.x..area.x + area.width).contains(&x)
                && (area.y..area.y + area.height).contains(&y)
        }));
    }

    #[test]
    fn notes_marks_and_trail_stay_within_their_limits() {
        let mut world = World::default();
        for nth in 0..10_000 {
            world.typed('x');
            world.pointer_moved(nth, nth);
            world.clicked();
        }
        assert_eq!(world.note.len(), NOTE_CHARACTERS_MAX);
        assert_eq!(
            (world.marks.len(), world.trail.len()),
            (MARKS_MAX, TRAIL_POINTS_MAX)
        );
    }

    #[test]
    fn pasted_text_is_kept_as_it_is_and_bounded() {
        let mut world = World::default();
        let now = Instant::now();
        let mut check = |text: &str, note: &str, words: &str| {
            world.pasted(text, now);
            assert_eq!(world.note, note, "{text:?}");
            assert_eq!(world.words.as_ref().map(|(words, _)| &**words), Some(words));
        };
        check("", "", "nothing to paste");
        check("ä", "ä", "pasted 1 character");
        check("\u{7}€\n", "ä€\n", "pasted 3 characters");
        check("", "ä€\n", "nothing to paste");
        world.select();
        world.pasted(&"😀".repeat(3 * NOTE_CHARACTERS_MAX), now);
        assert_eq!(world.note.chars().count(), NOTE_CHARACTERS_MAX);
        picture(&world, now);
    }

    #[test]
    fn what_is_selected_is_copied_and_replaced() {
        let mut world = World::default();
        let now = Instant::now();
        assert_eq!(world.copied(now), None);
        world.pasted("one", now);
        let plain = picture(&world, now);
        world.select();
        assert_ne!(picture(&world, now), plain);
        assert_eq!(world.copied(now).as_deref(), Some("one"));
        world.typed('2');
        assert_eq!(world.note, "2");
        world.select();
        world.typed('\u{8}');
        assert_eq!(world.note, "");
        world.pasted("three", now);
        world.select();
        world.clicked();
        world.typed('!');
        assert_eq!(world.note, "three!");
    }

    #[test]
    fn lines_are_wrapped_and_backspace_removes() {
        let mut world = World::default();
        "abcdef\ng\u{8}"
            .chars()
            .for_each(|character| world.typed(character));
        assert_eq!(wrap(&world.note, 4), ["abcd", "ef", ""]);
        assert_eq!(wrap("", 4), [""]);
    }
}
