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
        self.name.bytes().fold(0_usize, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(usize::from(byte))
        }) % TINTS
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

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = r#""><script>alert(1)</script>'&{{ 7 * 7 }}<img src=x onerror=alert(1)>"#;

    fn pages_of(text: &str) -> Vec<(&'static str, String)> {
        let tile = Tile {
            name: text,
            title: text,
            href: text,
            live_sessions: 3,
        };
        let login = LoginPage {
            organisation: text,
            next: text,
            csrf: text,
            user: text,
            problem: Some(text),
        };
        let launcher = LauncherPage {
            organisation: text,
            user: text,
            email: text,
            csrf: text,
            tiles: vec![tile, tile],
        };
        let desktop = DesktopPage {
            organisation: text,
            user: text,
            name: text,
            title: text,
            prefix: text,
            launcher: text,
        };
        let message = MessagePage {
            organisation: text,
            title: text,
            sentence: text,
            advice: text,
            detail: text,
            action: Some(Action {
                label: text,
                href: text,
            }),
        };
        vec![
            ("login", login.render()),
            ("launcher", launcher.render()),
            (
                "empty launcher",
                LauncherPage {
                    tiles: Vec::new(),
                    ..launcher
                }
                .render(),
            ),
            ("desktop", desktop.render()),
            ("message", message.render()),
        ]
    }

    #[test]
    fn hostile_text_is_escaped_on_every_page() {
        for (name, html) in pages_of(HOSTILE) {
            assert!(
                html.contains("&#60;script&#62;") || html.contains("&lt;script&gt;"),
                "{name} shows the text"
            );
            for raw in ["<script>", "<img", "\"><", "'&{"] {
                let own = pages_of("x")
                    .into_iter()
                    .find(|(other, _)| *other == name)
                    .expect("same pages")
                    .1;
                let count = |html: &str| html.matches(raw).count();
                assert_eq!(count(&html), count(&own), "{name} lets {raw} through");
            }
        }
    }

    #[test]
    fn no_page_contains_what_the_content_security_policy_forbids() {
        for (name, html) in pages_of("x") {
            for forbidden in [
                "<script>",
                " style=",
                "javascript:",
                "<iframe",
                "<base",
                "http://",
                "https://",
            ] {
                assert!(!html.contains(forbidden), "{name} contains {forbidden}");
            }
            let handlers = [
                " onclick=",
                " onload=",
                " onerror=",
                " onsubmit=",
                " oninput=",
            ];
            assert!(
                handlers.iter().all(|handler| !html.contains(handler)),
                "{name} has an inline handler"
            );
        }
    }

    #[test]
    fn every_asset_that_a_page_names_is_embedded() {
        for (name, html) in pages_of("x") {
            let named: Vec<&str> = html
                .split('"')
                .filter(|part| part.starts_with("/assets/"))
                .collect();
            assert!(named.len() >= 4, "{name} names {named:?}");
            assert!(
                named.iter().all(|path| crate::asset(path).is_some()),
                "{name} names {named:?}"
            );
        }
    }

    #[test]
    fn login_posts_all_that_control_asks_for() {
        let html = LoginPage {
            organisation: "Example",
            next: "/app/lab/",
            csrf: "token",
            user: "",
            problem: None,
        }
        .render();
        assert!(html.contains(r#"<form method="post" action="/login""#));
        for field in [
            r#"name="user""#,
            r#"name="password""#,
            r#"name="next" value="/app/lab/""#,
            r#"name="csrf" value="token""#,
        ] {
            assert!(html.contains(field), "{field}");
        }
    }

    #[test]
    fn the_launcher_shows_each_tile_once_and_search_only_where_it_helps() {
        let tile = Tile {
            name: "lab",
            title: "Lab PC",
            href: "/app/lab/",
            live_sessions: 0,
        };
        let page = |tiles| {
            LauncherPage {
                organisation: "E",
                user: "alice",
                email: "",
                csrf: "c",
                tiles,
            }
            .render()
        };
        assert_eq!(page(vec![tile]).matches(r#"href="/app/lab/""#).count(), 1);
        assert!(!page(vec![tile]).contains(r#"id="search""#));
        assert!(page(vec![tile, tile]).contains(r#"id="search""#));
        assert!(page(Vec::new()).contains("No desktop is open to you yet"));
        assert!(!page(vec![tile]).contains("Open now"));
        assert!(
            page(vec![Tile {
                live_sessions: 1,
                ..tile
            }])
            .contains("Open now")
        );
    }

    #[test]
    fn labels_belong_to_fields() {
        for (name, html) in pages_of("x") {
            for target in html
                .split("<label")
                .skip(1)
                .filter_map(|rest| rest.split_once("for=\""))
            {
                let (before, rest) = target;
                if before.contains('>') {
                    continue;
                }
                let id = rest.split('"').next().expect("a quoted id");
                assert!(
                    html.contains(&format!("id=\"{id}\"")),
                    "{name}: label for {id}"
                );
            }
        }
    }
}
