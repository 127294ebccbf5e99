//! The web page: its files are served to everybody, and let browsers run nothing else. What it does is tried in a
//! browser, by `scripts/try-page`.

use crate::{MEMORY, Stage};

/// The files that a text names as the page's own.
fn names(text: &str) -> Vec<String> {
    let parts = text.split(['"', '\'']);
    parts.filter_map(|part| part.strip_prefix("./").or(part.strip_prefix("/page/")).map(String::from)).collect()
}

#[test]
fn all_that_it_names_is_there_and_the_policy_goes_with_it() {
    let hash = format!("sha256:{}", "0".repeat(64));
    let closed = format!("{MEMORY}[[http.tokens]]\nname = \"a\"\nhash = \"{hash}\"\nallow = [\"read\"]\n");
    let stage = Stage::with(&closed);
    let mut http = stage.http();
    assert_eq!(http.get("/v1/services").status, 401, "what the page shows is for those who may see it");
    let page = http.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let html = String::from_utf8(page.body.clone()).expect("it is text");
    assert!(html.contains(env!("CARGO_PKG_VERSION")) && !html.contains("{{"), "{html}");
    assert!(!html.contains("http://") && !html.contains("https://") && !html.contains("style="), "{html}");
    let mut waiting = names(&html);
    let mut seen = vec![String::new()];
    while let Some(name) = waiting.pop() {
        if seen.contains(&name) {
            continue;
        }
        let response = http.get(&format!("/page/{name}"));
        assert_eq!(response.status, 200, "{name}");
        let policy = response.header("content-security-policy").expect("there is a policy");
        for rule in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "trusted-types 'none'"] {
            assert!(policy.contains(rule), "{name}: {policy}");
        }
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(response.header("referrer-policy"), Some("no-referrer"));
        let text = String::from_utf8(response.body.clone()).expect("it is text");
        waiting.extend(names(&text));
        let tag = response.header("etag").expect("there is a tag").to_string();
        let again = http.call("GET", &format!("/page/{name}"), &[("If-None-Match", &tag)], None);
        assert_eq!((again.status, again.body.len()), (304, 0), "{name}");
        seen.push(name);
    }
    assert!(seen.len() > 15, "{seen:?}");
    assert_eq!(http.call("GET", "/", &[("Host", "evil.example")], None).status, 421);
    assert_eq!(http.call("GET", "/page/../page/page.js", &[], None).status, 404);
}
