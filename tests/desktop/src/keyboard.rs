//! Keyboard and mouse events, turned into what happens in the world.

use std::sync::{Arc, Mutex};

use ironrdp_server::{KeyboardEvent, MouseEvent, RdpServerInputHandler};

use crate::lock;
use crate::scene::World;

/// Scan codes of set 1 as RDP sends them.
const LEFT_SHIFT: u8 = 0x2a;
const RIGHT_SHIFT: u8 = 0x36;
const CAPS_LOCK: u8 = 0x3a;

/// One connection's keyboard and mouse.
pub struct Input {
    world: Arc<Mutex<World>>,
    left_shift: bool,
    right_shift: bool,
    caps_lock: bool,
}

impl Input {
    pub fn new(world: Arc<Mutex<World>>) -> Self {
        Self {
            world,
            left_shift: false,
            right_shift: false,
            caps_lock: false,
        }
    }

    fn shift(&self) -> bool {
        self.left_shift || self.right_shift
    }
}

impl RdpServerInputHandler for Input {
    fn keyboard(&mut self, event: KeyboardEvent) {
        match event {
            KeyboardEvent::Pressed {
                code: LEFT_SHIFT, ..
            } => self.left_shift = true,
            KeyboardEvent::Released {
                code: LEFT_SHIFT, ..
            } => self.left_shift = false,
            KeyboardEvent::Pressed {
                code: RIGHT_SHIFT, ..
            } => self.right_shift = true,
            KeyboardEvent::Released {
                code: RIGHT_SHIFT, ..
            } => self.right_shift = false,
            KeyboardEvent::Pressed {
                code: CAPS_LOCK, ..
            } => self.caps_lock = !self.caps_lock,
            KeyboardEvent::Pressed { code, extended } => {
                let mut world = lock(&self.world);
                world.key_pressed();
                if let Some(character) = character(code, extended, self.shift(), self.caps_lock) {
                    world.typed(character);
                }
            }
            KeyboardEvent::UnicodePressed(unit) => {
                let mut world = lock(&self.world);
                world.key_pressed();
                // A lone half of a surrogate pair is no character; the font has none of those anyway.
                if let Some(character) = char::from_u32(u32::from(unit)) {
                    world.typed(character);
                }
            }
            KeyboardEvent::Synchronize(_) => {
                // The client starts afresh: what it held down before does not count.
                (self.left_shift, self.right_shift) = (false, false);
            }
            KeyboardEvent::Released { .. } | KeyboardEvent::UnicodeReleased(_) => {}
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
