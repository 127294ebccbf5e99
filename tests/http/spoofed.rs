//! Certificates that say more than their authority may, or that nobody can find a way through.

use rcgen::SanType;

use crate::MEMORY;
use crate::authority::{Authority, Held, dns, write};
use crate::harness::Host;
use crate::tls::{CLIENTS, TLS, is_refused, prepared, rule};

/// What comes of asking for services.
fn status(authority: &Authority, host: &Host, held: &Held) -> u16 {
    authority.connect(host, Some(held)).get("/v1/services").status
}

/// Whoever is an admin by name, and what cameras may do.
fn config() -> String {
    let rules = rule("*root*", "admin") + &rule("common", "admin") + &rule("*.cameras.lab", "read");
    format!("{MEMORY}{TLS}{CLIENTS}{rules}")
}

#[test]
fn who_makes_certificates_for_cameras_makes_no_admin() {
    let (authority, directory) = prepared();
    let host = Host::start(directory.path(), &config());
    let uri = SanType::URI("spiffe://lab/root".try_into().unwrap());
    let address = SanType::IpAddress([127, 0, 0, 1].into());
    let cameras = authority.below("cameras", &["cameras.lab"]);
    assert_eq!(status(&authority, &host, &cameras.named("one.cameras.lab")), 200);
    assert!(is_refused(&authority, &host, &cameras.named("root.lab")), "a name that it may not give");
    // Nothing holds it to its names in these, so they are none.
    for names in [vec![uri.clone()], vec![address.clone()], vec![]] {
        assert_eq!(status(&authority, &host, &cameras.client(&names)), 401, "{names:?}");
    }
    let both = cameras.client(&[uri.clone(), dns("two.cameras.lab")]);
    assert_eq!(status(&authority, &host, &both), 200, "its DNS name is its name");
    // Whoever it lets vouch for others is held to the same.
    let deeper = cameras.below("deeper", &[]);
    assert_eq!(status(&authority, &host, &deeper.named("three.cameras.lab")), 200);
    assert_eq!(status(&authority, &host, &deeper.client(&[])), 401);
    // One that may give any name may.
    let others = authority.below("others", &[]);
    for held in [others.client(&[uri]), others.client(&[address]), others.named("root.lab")] {
        assert_eq!(status(&authority, &host, &held), 200);
    }
}

#[test]
fn an_authority_that_the_registry_knows_is_held_to_its_names_too() {
    let (authority, directory) = prepared();
    let cameras = Authority::limited("cameras", &["cameras.lab"]);
    write(directory.path(), "clients.pem", &cameras.pem());
    let host = Host::start(directory.path(), &config());
    let status = |held: &Held| status(&authority, &host, held);
    assert_eq!(status(&cameras.named("one.cameras.lab")), 200);
    assert!(is_refused(&authority, &host, &cameras.named("root.lab")));
    assert_eq!(status(&cameras.client(&[])), 401);
    // Another authority of the same name is another one.
    let other = Authority::limited("cameras", &["cameras.lab"]);
    assert!(is_refused(&authority, &host, &other.named("one.cameras.lab")));
}

#[test]
fn nobody_is_kept_waiting_while_a_way_through_hundreds_is_looked_for() {
    let (authority, directory) = prepared();
    let host = Host::start(directory.path(), &format!("{MEMORY}{TLS}{CLIENTS}"));
    let mut between = vec![authority.below("1", &[])];
    for number in 2..=5 {
        let next = between[between.len() - 1].below(&number.to_string(), &[]);
        between.push(next);
    }
    assert_eq!(status(&authority, &host, &between[3].named("a.lab")), 200, "four between");
    assert!(is_refused(&authority, &host, &between[4].named("a.lab")), "five");
    assert!(is_refused(&authority, &host, &Authority::crowd(100)));
    assert_eq!(status(&authority, &host, &authority.named("a.lab")), 200);
}
