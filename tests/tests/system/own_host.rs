//! Applications on a public host name of their own: how a login comes there, and how no further.

use anyhow::{Context as _, Result, bail, ensure};
use postern_tests::browserless::{APPLICATION_COOKIE, ORGANISATION_COOKIE, Opened, PATIENCE};
use postern_tests::gateway::{Application, Configuration, PASSWORD};
use postern_tests::{Browser, FakeTarget, Gateway};

use crate::scene::Scene;

/// One person's browser: what it has of each host.
struct Person {
    organisation: Browser,
    lab: Browser,
    office: Browser,
}

fn start() -> Result<(FakeTarget, Gateway, Person)> {
    let target = FakeTarget::echo()?;
    let own = |name: &str| Application {
        host: Some(format!("{name}.localhost")),
        ..Application::new(name, target.address)
    };
    let mut configuration = Configuration::for_target(target.address);
    configuration.applications = vec![
        own("lab"),
        own("office"),
        Application::new("shared", target.address),
    ];
    let gateway = Gateway::start(configuration)?;
    let person = Person::of(&gateway);
    Ok((target, gateway, person))
}

impl Person {
    fn of(gateway: &Gateway) -> Self {
        let organisation = gateway.browser();
        Self {
            lab: organisation.on_own_host("lab.localhost"),
            office: organisation.on_own_host("office.localhost"),
            organisation,
        }
    }
}

/// Where a redirect leads: to a page of `to`, whose path this is.
fn redirected(answer: &postern_tests::browserless::Response, to: &Browser) -> Result<String> {
    let location = answer.header("location").unwrap_or_default();
    ensure!(
        answer.status == 303,
        "{} instead of a redirect",
        answer.status
    );
    let path = match location.strip_prefix(&to.origin()) {
        Some(path) => path,
        None if location.starts_with('/') => location,
        None => bail!("{location} is not at {}", to.origin()),
    };
    Ok(path.to_owned())
}

/// The address with the code that brings a signed-in person to an application's own host.
fn code(organisation: &mut Browser, own: &mut Browser) -> Result<String> {
    let asked = own.get("/")?;
    let hand_over = redirected(&asked, organisation)?;
    ensure!(hand_over.starts_with("/handover?"), "{hand_over}");
    redirected(&organisation.get(&hand_over)?, own)
}

/// The way of a signed-in person to an application's own host.
fn enter(organisation: &mut Browser, own: &mut Browser) -> Result<()> {
    let code = code(organisation, own)?;
    let home = redirected(&own.get(&code)?, own)?;
    ensure!(home == "/", "{home}");
    let page = own.get("/")?;
    ensure!(page.status == 200, "the page answers {}", page.status);
    Ok(())
}

#[test]
fn a_login_is_handed_over_to_a_desktop_on_its_own_host() -> Result<()> {
    let (_target, _gateway, mut person) = start()?;
    let Person {
        organisation, lab, ..
    } = &mut person;
    // A link straight to the application leads to the login, and from there back.
    let hand_over = redirected(&lab.get("/")?, organisation)?;
    let login = redirected(&organisation.get(&hand_over)?, organisation)?;
    let page = organisation.get(&login)?;
    let field = |name| page.field(name).context(name);
    let (csrf, next) = (field("csrf")?, field("next")?);
    let fields = [
        ("csrf", csrf.as_str()),
        ("next", next.as_str()),
        ("user", "alice"),
        ("password", PASSWORD),
    ];
    let signed_in = organisation.post_form("/login", &fields)?;
    let home = redirected(&signed_in, lab)?;
    ensure!(home == "/", "{home}");
    for cookie in signed_in.all("set-cookie") {
        // [RFC 6265 §5.3] Without a domain it is sent to the organisation's host alone.
        ensure!(!cookie.to_lowercase().contains("domain"), "{cookie}");
    }
    let launcher = organisation.get("/")?.text();
    ensure!(launcher.contains(&format!("{}/", lab.origin())));

    let code = code(organisation, lab)?;
    ensure!(code.starts_with("/.postern/handover?code="), "{code}");
    let taken = lab.get(&code)?;
    ensure!(redirected(&taken, lab)? == "/");
    let cookie = taken
        .all("set-cookie")
        .find(|cookie| cookie.starts_with(APPLICATION_COOKIE))
        .context("the application's cookie")?;
    for attribute in ["Path=/;", "Secure", "HttpOnly", "SameSite=Lax"] {
        ensure!(cookie.contains(attribute), "{cookie}");
    }
    ensure!(!cookie.to_lowercase().contains("domain"), "{cookie}");
    ensure!(lab.get("/")?.status == 200);
    ensure!(
        lab.cookie_names().all(|name| name != ORGANISATION_COOKIE),
        "the application's host has the organisation's cookie"
    );
    let mut desktop = lab.desktop("lab")?;
    desktop.send(b"on its own host")?;
    ensure!(desktop.receive_exactly(15)? == b"on its own host");
    ensure!(lab.script("POST", "/renew")?.status == 204);
    let status = lab.script("GET", "/status")?.json()?;
    ensure!(status["live"].as_array().is_some_and(|all| all.len() == 1));

    // Signing out at the organisation ends it there as well.
    let launcher = organisation.get("/")?;
    let csrf = launcher.field("csrf").context("a logout form")?;
    organisation.post_form("/logout", &[("csrf", &csrf)])?;
    ensure!(desktop.closed()? == (4001, "revoked".to_owned()));
    ensure!(lab.get("/")?.status == 303, "the page is still open");
    ensure!(lab.script("POST", "/renew")?.status == 401);
    Ok(())
}

#[test]
fn a_hand_over_code_works_once_in_one_browser_at_one_application() -> Result<()> {
    let (_target, gateway, mut person) = start()?;
    person.organisation.sign_in("alice", PASSWORD)?;
    let code = code(&mut person.organisation, &mut person.lab)?;
    let mut thief = Person::of(&gateway);
    let refused = |browser: &mut Browser, what: &str| -> Result<()> {
        let answer = browser.get(&code)?;
        ensure!(answer.status == 403, "{what}: {}", answer.status);
        let token = browser.cookie(APPLICATION_COOKIE);
        ensure!(token.is_none(), "{what}: a cookie is set");
        Ok(())
    };
    refused(&mut thief.lab, "a browser that never asked")?;
    person.office.get("/")?;
    refused(&mut person.office, "another application")?;
    // None of these has used it up for its owner.
    ensure!(redirected(&person.lab.get(&code)?, &person.lab)? == "/");
    ensure!(person.lab.get("/")?.status == 200);
    let again = person.lab.get(&code)?;
    ensure!(again.status == 403, "a second time: {}", again.status);

    // In a browser that asked for itself a code is refused as well, and void from then on; its
    // owner gets another one without being asked for anything.
    let mut owner = Person::of(&gateway);
    owner.organisation.sign_in("alice", PASSWORD)?;
    let stolen = self::code(&mut owner.organisation, &mut owner.lab)?;
    thief.lab.get("/")?;
    ensure!(thief.lab.get(&stolen)?.status == 403);
    ensure!(thief.lab.cookie(APPLICATION_COOKIE).is_none());
    ensure!(owner.lab.get(&stolen)?.status == 403);
    enter(&mut owner.organisation, &mut owner.lab)?;

    let mut tampered = person.organisation.on_own_host("lab.localhost");
    let asked = redirected(&tampered.get("/")?, &person.organisation)?;
    let other = redirected(&person.organisation.get(&asked)?, &tampered)?;
    let answer = tampered.get(&format!("{other}0"))?;
    ensure!(answer.status == 403, "a longer code: {}", answer.status);
    Ok(())
}

#[test]
fn a_token_opens_nothing_on_another_applications_host() -> Result<()> {
    let (target, gateway, mut person) = start()?;
    person.organisation.sign_in("alice", PASSWORD)?;
    enter(&mut person.organisation, &mut person.lab)?;
    person.organisation.open("shared")?;
    let token = |browser: &Browser, application: &str| {
        browser
            .token(application)
            .map(str::to_owned)
            .context("a token")
    };
    let labs = token(&person.lab, "lab")?;
    let shared = token(&person.organisation, "shared")?;
    let login = person
        .organisation
        .cookie(ORGANISATION_COOKIE)
        .context("a login")?
        .to_owned();
    let scene = Scene {
        gateway,
        target,
        alice: person.organisation.clone(),
    };
    let refused = |what: &str, at: &Browser, name: &str, token: &str, status: u16, reason: &str| {
        let mut thief = at.clone();
        thief.forget_cookies();
        thief.set_cookie(&at.home(name), APPLICATION_COOKIE, token);
        scene.check(what, reason, || match thief.try_upgrade(name)? {
            Opened::Refused(answer) if answer.status == status => Ok(answer.source),
            other => bail!("answered with {other:?}"),
        })?;
        let page = thief.get(&thief.home(name))?;
        ensure!(
            page.status == 303,
            "{what}: the page answers {}",
            page.status
        );
        ensure!(
            thief
                .script("GET", &format!("{}status", at.home(name)))?
                .status
                == 401
        );
        Ok(())
    };
    let Person {
        organisation,
        lab,
        office,
    } = &person;
    let audience = "token_audience";
    refused("lab's at office", office, "office", &labs, 403, audience)?;
    refused(
        "lab's at the shared host",
        organisation,
        "shared",
        &labs,
        403,
        audience,
    )?;
    refused("the shared one at lab", lab, "lab", &shared, 403, audience)?;
    refused(
        "the login itself at lab",
        lab,
        "lab",
        &login,
        403,
        "token_type",
    )?;

    // What lives on a host of its own is not on the organisation's, and the other way round.
    for (browser, path) in [
        (organisation, "/app/lab/"),
        (lab, "/app/shared/"),
        (lab, "/login"),
    ] {
        let answer = browser.clone().get(path)?;
        ensure!(answer.status == 404, "{path} answers {}", answer.status);
    }
    // A login that somebody planted on the application's host is not looked at.
    let mut planted = organisation.on_own_host("lab.localhost");
    planted.set_cookie("/", ORGANISATION_COOKIE, &login);
    ensure!(planted.get("/")?.status == 303);
    ensure!(planted.script("POST", "/renew")?.status == 401);
    lab.desktop("lab").map(drop)
}

#[test]
fn a_connection_for_one_host_serves_no_other() -> Result<()> {
    let (target, gateway, mut person) = start()?;
    person.organisation.sign_in("alice", PASSWORD)?;
    enter(&mut person.organisation, &mut person.lab)?;
    let headers = person.lab.upgrade_headers("lab");
    let upgrade = Browser::upgrade_head_at("/rdp", &headers);
    let page = format!(
        "GET / HTTP/1.1\r\n{}: {}\r\n\r\n",
        headers[0].0, headers[0].1
    );
    let scene = Scene {
        gateway,
        target,
        alice: person.organisation.clone(),
    };
    for (what, head) in [("a desktop", &upgrade), ("a page", &page)] {
        for connected in [&person.organisation, &person.office] {
            let what = format!("{what} by {}", connected.host);
            scene.check(&what, "misdirected", || {
                let answer = connected.raw(head.as_bytes(), PATIENCE)?;
                ensure!(answer.status() == 421, "{}", answer.status());
                Ok(answer.source)
            })?;
        }
    }
    // The page of another host may not open it either.
    let mut foreign = headers;
    for (_, value) in foreign.iter_mut().filter(|(name, _)| name == "Origin") {
        *value = person.organisation.origin();
    }
    scene.check("the launcher's origin", "origin_mismatch", || {
        let head = Browser::upgrade_head_at("/rdp", &foreign);
        let answer = person.lab.raw(head.as_bytes(), PATIENCE)?;
        ensure!(answer.status() == 403, "{}", answer.status());
        Ok(answer.source)
    })?;
    // And a host that nobody serves gets no page at all.
    let stranger = person.organisation.on("stranger.localhost");
    let answer = stranger.clone().get("/")?;
    ensure!(answer.status == 421, "{}", answer.status);
    person.lab.desktop("lab").map(drop)
}
