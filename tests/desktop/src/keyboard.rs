//! Keyboard and mouse events, turned into what happens in the world.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use ironrdp_server::{KeyboardEvent, MouseEvent, RdpServerInputHandler};

use crate::clipboard::{Clipboard, Text};
use crate::lock;
use crate::scene::World;

/// Scan codes of set 1 as RDP sends them.
const LEFT_SHIFT: u8 = 0x2a;
const RIGHT_SHIFT: u8 = 0x36;
const CAPS_LOCK: u8 = 0x3a;
/// Extended, these are the right-hand keys.
const CONTROL: u8 = 0x1d;
const ALT: u8 = 0x38;

/// One connection's keyboard and mouse.
pub struct Input {
    world: Arc<Mutex<World>>,
    clipboard: Clipboard,
    left_shift: bool,
    right_shift: bool,
    left_control: bool,
    right_control: bool,
    left_alt: bool,
    right_alt: bool,
    caps_lock: bool,
}

impl Input {
    pub fn new(world: Arc<Mutex<World>>, clipboard: Clipboard) -> Self {
        Self {
            world,
            clipboard,
            left_shift: false,
            right_shift: false,
            left_control: false,
            right_control: false,
            left_alt: false,
            right_alt: false,
            caps_lock: false,
        }
    }

    fn shift(&self) -> bool {
        self.left_shift || self.right_shift
    }

    /// Control alone: together with Alt it is AltGr, which types.
    fn commands(&self) -> bool {
        (self.left_control || self.right_control) && !self.left_alt && !self.right_alt
    }

    /// The state of the modifier that a key is, if it is one.
    fn modifier(&mut self, code: u8, extended: bool) -> Option<&mut bool> {
        match (code, extended) {
            (LEFT_SHIFT, _) => Some(&mut self.left_shift),
            (RIGHT_SHIFT, _) => Some(&mut self.right_shift),
            (CONTROL, false) => Some(&mut self.left_control),
            (CONTROL, true) => Some(&mut self.right_control),
            (ALT, false) => Some(&mut self.left_alt),
            (ALT, true) => Some(&mut self.right_alt),
            _ => None,
        }
    }

    fn pressed(&mut self, character: Option<char>) {
        lock(&self.world).key_pressed();
        match character {
            Some(character) if self.commands() => self.command(character),
            Some(character) => lock(&self.world).typed(character),
            None => {}
        }
    }

    /// What a key does together with Control.
    fn command(&self, character: char) {
        let now = Instant::now();
        match character.to_ascii_lowercase() {
            'a' => lock(&self.world).select(),
            'c' => {
                let text = lock(&self.world).copied(now);
                if text.is_some_and(|text| !self.clipboard.offer(text)) {
                    lock(&self.world).say("no clipboard".to_owned(), now);
                }
            }
            'v' => match self.clipboard.text(now) {
                Text::Asked => {}
                Text::Own(text) => lock(&self.world).pasted(&text, now),
                Text::Nothing => lock(&self.world).pasted("", now),
            },
            _ => {}
        }
    }
}

impl RdpServerInputHandler for Input {
    fn keyboard(&mut self, event: KeyboardEvent) {
        match event {
            KeyboardEvent::Pressed {
                code: CAPS_LOCK, ..
            } => self.caps_lock = !self.caps_lock,
            KeyboardEvent::Pressed { code, extended } => {
                if let Some(held) = self.modifier(code, extended) {
                    *held = true;
                    return;
                }
                self.pressed(character(code, extended, self.shift(), self.caps_lock));
            }
            KeyboardEvent::Released { code, extended } => {
                if let Some(held) = self.modifier(code, extended) {
                    *held = false;
                }
            }
            // A lone half of a surrogate pair is no character; the font has none of those anyway.
            KeyboardEvent::UnicodePressed(unit) => self.pressed(char::from_u32(u32::from(unit))),
            KeyboardEvent::UnicodeReleased(_) => {}
            KeyboardEvent::Synchronize(_) => {
                // The client starts afresh: what it held down before does not count.
                (self.left_shift, self.right_shift) = (false, false);
                (self.left_control, self.right_control) = (false, false);
                (self.left_alt, self.right_alt) = (false, false);
            }
        }
    }

    fn mouse(&mut self, event: MouseEvent) {
        let mut world = lock(&self.world);
        match event {
            MouseEvent::Move { x, y } => world.pointer_moved(i32::from(x), i32::from(y)),
            MouseEvent::LeftPressed | MouseEvent::RightPressed | MouseEvent::MiddlePressed => {
                world.clicked();
            }
            _ => {}
        }
    }
}

/// What a key types on a US keyboard; `\u{8}` is backspace.
fn character(code: u8, extended: bool, shift: bool, caps_lock: bool) -> Option<char> {
    const PLAIN: &[u8; 0x36] =
        b"\0\x1b1234567890-=\x08\tqwertyuiop[]\n\0asdfghjkl;'`\0\\zxcvbnm,./";
    const SHIFTED: &[u8; 0x36] =
        b"\0\x1b!@#$%^&*()_+\x08\tQWERTYUIOP{}\n\0ASDFGHJKL:\"~\0|ZXCVBNM<>?";
    match code {
        0x39 => return Some(' '),
        // Enter and `/` of the number pad are the only extended keys that type something.
        0x1c | 0x35 if extended => return Some(if code == 0x1c { '\n' } else { '/' }),
        _ if extended => return None,
        _ => {}
    }
    let plain = char::from(*PLAIN.get(usize::from(code))?);
    let upper = if plain.is_ascii_lowercase() {
        shift != caps_lock
    } else {
        shift
    };
    let typed = if upper {
        char::from(SHIFTED[usize::from(code)])
    } else {
        plain
    };
    (!matches!(typed, '\0' | '\x1b')).then_some(typed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(input: &mut Input, code: u8) {
        let extended = false;
        input.keyboard(KeyboardEvent::Pressed { code, extended });
    }

    fn release(input: &mut Input, code: u8) {
        let extended = false;
        input.keyboard(KeyboardEvent::Released { code, extended });
    }

    #[test]
    fn control_commands_and_types_nothing() {
        let world: Arc<Mutex<World>> = Arc::default();
        let mut input = Input::new(Arc::clone(&world), Clipboard::default());
        let note = || lock(&world).copied(Instant::now());
        press(&mut input, 0x1e);
        press(&mut input, CONTROL);
        for code in [0x1e, 0x2e, 0x2f, 0x10] {
            press(&mut input, code);
        }
        assert_eq!(note().as_deref(), Some("a"));
        press(&mut input, ALT);
        press(&mut input, 0x2f);
        assert_eq!(note().as_deref(), Some("v"), "the selection is replaced");
        release(&mut input, ALT);
        release(&mut input, CONTROL);
        press(&mut input, 0x2e);
        assert_eq!(note().as_deref(), Some("vc"));
    }

    #[test]
    fn scan_codes_type_what_a_us_keyboard_says() {
        let cases = [
            (0x1e, false, false, false, Some('a')),
            (0x1e, false, true, false, Some('A')),
            (0x1e, false, false, true, Some('A')),
            (0x1e, false, true, true, Some('a')),
            (0x02, false, false, true, Some('1')),
            (0x02, false, true, false, Some('!')),
            (0x35, false, false, false, Some('/')),
            (0x35, false, true, false, Some('?')),
            (0x2b, false, false, false, Some('\\')),
            (0x39, false, false, false, Some(' ')),
            (0x1c, false, false, false, Some('\n')),
            (0x1c, true, false, false, Some('\n')),
            (0x0e, false, false, false, Some('\u{8}')),
            (0x01, false, false, false, None),
            (0x1d, false, false, false, None),
            (0x4b, true, false, false, None),
            (0xff, false, false, false, None),
        ];
        for (code, extended, shift, caps_lock, expected) in cases {
            assert_eq!(
                character(code, extended, shift, caps_lock),
                expected,
                "{code:#x}"
            );
        }
    }
}
