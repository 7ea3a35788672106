//! The pages, each a struct of what it shows; askama escapes every field.

use askama::Template;

use crate::assets::{DESKTOP_TS, MARK_SVG, PAGE_CSS, PAGE_TS, THEME_TS};

/// `/login`. Works without JavaScript: posts `user`, `password`, `next` and `csrf` to `/login`.
#[derive(Debug, Clone, Template)]
#[template(path = "login.html")]
pub struct LoginPage<'a> {
    /// Name of the organisation, from the configuration.
    pub organisation: &'a str,
    /// Where to go afterwards; control has checked that it is a place of its own.
    pub next: &'a str,
    pub csrf: &'a str,
    /// Typed before, shown again after a refusal; else empty.
    pub user: &'a str,
    /// Why the last attempt was refused, as one sentence.
    pub problem: Option<&'a str>,
}

/// `/` on the organisation's host: exactly the applications that this user may open.
#[derive(Debug, Clone, Template)]
#[template(path = "launcher.html")]
pub struct LauncherPage<'a> {
    pub organisation: &'a str,
    /// Who is signed in.
    pub user: &'a str,
    pub email: &'a str,
    /// For the sign-out form, posted to `/logout`.
    pub csrf: &'a str,
    /// Already in the order to show.
    pub tiles: Vec<Tile<'a>>,
}

/// One application on the launcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile<'a> {
    /// The application's slug; searched as well as the title.
    pub name: &'a str,
    pub title: &'a str,
    /// The desktop page: `PREFIX/`, or the whole address when the application has its own host.
    pub href: &'a str,
    /// Live sessions that this user has there now.
    pub live_sessions: usize,
}

/// Colours that tiles are told apart by, `tint-0` and on in the style sheet.
const TINTS: usize = 6;

impl Tile<'_> {
    /// Always the same for the same name.
    fn tint(&self) -> usize {
        self.name.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte))) % TINTS
    }
}

/// `PREFIX/`: one application's desktop.
#[derive(Debug, Clone, Template)]
#[template(path = "desktop.html")]
pub struct DesktopPage<'a> {
    pub organisation: &'a str,
    /// Who is signed in.
    pub user: &'a str,
    /// The application's slug; the client also sends it as the destination of its RDP request.
    pub name: &'a str,
    pub title: &'a str,
    /// `Application.public.prefix`: `/app/NAME`, or empty on a host of its own.
    pub prefix: &'a str,
    /// The organisation's launcher: `/`, or a whole address when this page is on another host.
    pub launcher: &'a str,
}

/// A page of words: refusals, errors, ends.
#[derive(Debug, Clone, Template)]
#[template(path = "message.html")]
pub struct MessagePage<'a> {
    pub organisation: &'a str,
    /// A few words, e.g. `This desktop is not open to you`.
    pub title: &'a str,
    /// What happened, as a sentence.
    pub sentence: &'a str,
    /// What to do about it, as a sentence; may be empty.
    pub advice: &'a str,
    /// For the administrator: a rule's or reason's name; may be empty.
    pub detail: &'a str,
    pub action: Option<Action<'a>>,
}

/// A link shown as a button.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action<'a> {
    pub label: &'a str,
    pub href: &'a str,
}

macro_rules! renders {
    ($($page:ident),*) => {$(
        impl $page<'_> {
            /// The whole HTML document.
            #[must_use]
            pub fn render(&self) -> String {
                Template::render(self).expect("templates call nothing that fails")
            }
        }
    )*};
}

renders!(LoginPage, LauncherPage, DesktopPage, MessagePage);
