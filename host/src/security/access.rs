//! Who may do what, once it is known who somebody is.
//!
//! Pure: a principal and what it wants go in, yes or no comes out. Rules only allow; what no rule allows is refused.
//! Without keys clients cannot be told apart, and everybody may do everything: see [`Access::open`].

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::key::PublicKey;
use super::principal::{Name, Principal};

/// What a rule can allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// To see services: `get`, `list`, `discover`, `info`, and the events.
    Read,
    /// To register services, and to keep and remove one's own.
    Register,
    /// Everything, with everybody's services, and to stop the server.
    Admin,
}

/// What some clients may do: one of the operator's rules, ready for use.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Whose it is; `None` is everybody who may connect.
    pub clients: Option<HashSet<PublicKey>>,
    /// What they may do.
    pub allow: HashSet<Right>,
    /// Only services all of whose types match one of these; empty for any.
    pub types: Vec<Pattern>,
    /// Only services whose name matches one of these; empty for any.
    pub names: Vec<Pattern>,
}

impl Default for Grant {
    /// What everybody may do where there are no rules: to read, and to register anything.
    fn default() -> Self {
        let allow = HashSet::from([Right::Read, Right::Register]);
        Grant { clients: None, allow, types: Vec::new(), names: Vec::new() }
    }
}

impl Grant {
    fn is_for(&self, client: &PublicKey) -> bool {
        self.clients.as_ref().is_none_or(|clients| clients.contains(client))
    }

    fn covers(&self, name: &str, types: &[String]) -> bool {
        // A client that may register only cameras must not tag its camera as a stage too: it would be discovered as
        // one. A service without types is no camera either.
        let are_types_covered = match (self.types.is_empty(), types.is_empty()) {
            (true, _) => true,
            (false, true) => false,
            (false, false) => types.iter().all(|one| self.types.iter().any(|pattern| pattern.matches(one))),
        };
        are_types_covered && (self.names.is_empty() || self.names.iter().any(|pattern| pattern.matches(name)))
    }
}

/// Text in which `*` stands for any text, the empty one included. All else stands for itself, and case matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// The pattern that this text is.
    pub fn new(text: impl Into<String>) -> Self {
        Pattern(text.into())
    }

    /// Whether the whole of a text matches.
    pub fn matches(&self, text: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            // The first match leaves the most text for what follows.
            let Some((_, behind)) = rest.split_once(part) else { return false };
            rest = behind;
        }
        rest.ends_with(last)
    }
}

/// Who may do what.
#[derive(Clone, Debug)]
pub struct Access {
    /// What keys may do; `None` if nobody is asked for one.
    rules: Option<Vec<Grant>>,
    /// What tokens may do, each by its name.
    tokens: HashMap<Name, Grant>,
    /// What certificates may do: the patterns of the names that each rule is for.
    certificates: Vec<(Vec<Pattern>, Grant)>,
}

impl Access {
    /// Everybody may do everything.
    pub fn open() -> Self {
        Access { rules: None, tokens: HashMap::new(), certificates: Vec::new() }
    }

    /// Those that have a token may do what is granted to its name, whatever others may do.
    pub fn with_tokens(self, tokens: impl IntoIterator<Item = (Name, Grant)>) -> Self {
        Access { tokens: tokens.into_iter().collect(), ..self }
    }

    /// Clients are told apart by their keys, and may do what some rule allows. Without any rule they may read and
    /// register, and nobody is an admin.
    pub fn by_rules(mut rules: Vec<Grant>) -> Self {
        if rules.is_empty() {
            rules.push(Grant::default());
        }
        Access { rules: Some(rules), ..Access::open() }
    }

    /// Those that have a certificate may do what is granted to a pattern that its name matches. Without any grant they
    /// may what those with keys may without rules.
    pub fn with_certificates(self, grants: impl IntoIterator<Item = (Vec<Pattern>, Grant)>) -> Self {
        let mut certificates: Vec<_> = grants.into_iter().collect();
        if certificates.is_empty() {
            certificates.push((vec![Pattern::new("*")], Grant::default()));
        }
        Access { certificates, ..self }
    }

    /// Whether a client may see services.
    pub fn may_read(&self, principal: &Principal) -> bool {
        self.is_allowed(principal, |rule| rule.allow.contains(&Right::Read))
    }

    /// Whether a client may register a service with this name and these types.
    pub fn may_register(&self, principal: &Principal, name: &str, types: &[String]) -> bool {
        self.is_allowed(principal, |rule| rule.allow.contains(&Right::Register) && rule.covers(name, types))
    }

    /// Whether a client may do everything.
    pub fn is_admin(&self, principal: &Principal) -> bool {
        self.is_allowed(principal, |_| false)
    }

    /// Whether a client may renew, replace or remove a service of this owner. A service without an owner was registered
    /// when nobody was asked for a key: it is anybody's until somebody registers it again.
    pub fn may_change(&self, principal: &Principal, owner: Principal) -> bool {
        owner == Principal::Nobody || owner == *principal || self.is_admin(principal)
    }

    fn is_allowed(&self, principal: &Principal, allows: impl Fn(&Grant) -> bool) -> bool {
        let is_enough = |grant: &Grant| grant.allow.contains(&Right::Admin) || allows(grant);
        match principal {
            Principal::Stranger => false,
            Principal::Token(name) => self.tokens.get(name).is_some_and(is_enough),
            Principal::Certificate(name) => {
                let is_for = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(name.as_str()));
                self.certificates.iter().any(|(patterns, grant)| is_for(patterns) && is_enough(grant))
            }
            Principal::Nobody => self.rules.is_none(),
            Principal::Key(key) => {
                self.rules.as_ref().is_none_or(|rules| rules.iter().any(|rule| rule.is_for(key) && is_enough(rule)))
            }
        }
    }

    /// The keys that rules name.
    pub fn named(&self) -> impl Iterator<Item = &PublicKey> {
        self.rules.iter().flatten().filter_map(|rule| rule.clients.as_ref()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAMERA_KEY: PublicKey = PublicKey::from_bytes([1; 32]);
    const STAGE_KEY: PublicKey = PublicKey::from_bytes([2; 32]);
    const CAMERA: Principal = Principal::Key(CAMERA_KEY);
    const STAGE: Principal = Principal::Key(STAGE_KEY);
    const NOBODY: Principal = Principal::Nobody;

    fn rule(clients: &[PublicKey], allow: &[Right]) -> Grant {
        let clients = (!clients.is_empty()).then(|| clients.iter().copied().collect());
        Grant { clients, allow: allow.iter().copied().collect(), types: Vec::new(), names: Vec::new() }
    }

    fn types(types: &[&str]) -> Vec<String> {
        types.iter().map(|text| text.to_string()).collect()
    }

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts.iter().map(|text| Pattern::new(*text)).collect()
    }

    #[test]
    fn a_star_is_any_text() {
        for (pattern, matching, other) in [
            ("camera", &["camera"][..], &["", "Camera", "camera1", "a camera"][..]),
            ("", &[""], &["a"]),
            ("*", &["", "a", "a*b"], &[]),
            ("cam*", &["cam", "camera"], &["ca", "acam"]),
            ("*era", &["era", "camera"], &["eras"]),
            ("a*b*c", &["abc", "a-b-c", "abbc", "abcbc"], &["acb", "ab", "abcd", "ac"]),
            ("ab*ba", &["abba", "ab-ba"], &["aba", "ab"]),
            ("*ä*", &["ä", "xäx"], &["a"]),
        ] {
            let shown = Pattern::new(pattern);
            matching.iter().for_each(|text| assert!(shown.matches(text), "{pattern} {text}"));
            other.iter().for_each(|text| assert!(!shown.matches(text), "{pattern} {text}"));
        }
    }

    #[test]
    fn without_keys_everybody_may_do_everything() {
        let access = Access::open();
        assert!(access.may_read(&NOBODY) && access.may_register(&NOBODY, "n", &[]) && access.is_admin(&NOBODY));
        assert!(access.may_change(&NOBODY, CAMERA));
        let stranger = Principal::Stranger;
        assert!(
            !access.may_read(&stranger) && !access.may_register(&stranger, "n", &[]) && !access.is_admin(&stranger)
        );
    }

    #[test]
    fn without_rules_everybody_reads_and_registers_and_nobody_is_an_admin() {
        let access = Access::by_rules(Vec::new());
        assert!(access.may_read(&CAMERA) && access.may_register(&CAMERA, "n", &types(&["t"])));
        assert!(!access.is_admin(&CAMERA));
        // Whoever has no key has no right.
        assert!(!access.may_read(&NOBODY) && !access.may_register(&NOBODY, "n", &[]) && !access.is_admin(&NOBODY));
    }

    #[test]
    fn a_rule_allows_what_it_says_to_whom_it_names() {
        let access =
            Access::by_rules(vec![rule(&[CAMERA_KEY], &[Right::Read]), rule(&[STAGE_KEY], &[Right::Register])]);
        assert!(access.may_read(&CAMERA) && !access.may_register(&CAMERA, "n", &[]));
        assert!(!access.may_read(&STAGE) && access.may_register(&STAGE, "n", &[]));
        let access = Access::by_rules(vec![rule(&[], &[Right::Read]), rule(&[CAMERA_KEY], &[Right::Admin])]);
        assert!(access.is_admin(&CAMERA) && access.may_register(&CAMERA, "n", &types(&["t"])));
        assert!(!access.is_admin(&STAGE) && access.may_read(&STAGE));
        assert_eq!(access.named().collect::<Vec<_>>(), [&CAMERA_KEY]);
    }

    #[test]
    fn all_types_of_a_service_and_its_name_have_to_match() {
        let mut only = rule(&[], &[Right::Register]);
        (only.types, only.names) = (patterns(&["camera", "cam-*"]), patterns(&["Camera *"]));
        let access = Access::by_rules(vec![only]);
        let may = |name: &str, types: &[&str]| access.may_register(&CAMERA, name, &self::types(types));
        assert!(may("Camera 1", &["camera"]) && may("Camera 1", &["camera", "cam-1"]));
        assert!(!may("Camera 1", &["camera", "stage"]), "a second type that is not allowed");
        assert!(!may("Camera 1", &[]), "no type at all");
        assert!(!may("Stage 1", &["camera"]), "another name");
    }

    #[test]
    fn a_token_may_do_what_is_granted_to_its_name() {
        let name = |text: &str| Name::new(text).unwrap();
        let token = |text: &str| Principal::Token(name(text));
        let mut only = rule(&[], &[Right::Register]);
        only.types = patterns(&["camera"]);
        let tokens = [
            (name("reader"), rule(&[], &[Right::Read])),
            (name("cam"), only),
            (name("root"), rule(&[], &[Right::Admin])),
        ];
        for access in [Access::open(), Access::by_rules(Vec::new())].map(|access| access.with_tokens(tokens.clone())) {
            assert!(access.may_read(&token("reader")) && !access.may_register(&token("reader"), "n", &[]));
            assert!(access.may_register(&token("cam"), "n", &types(&["camera"])) && !access.may_read(&token("cam")));
            assert!(!access.may_register(&token("cam"), "n", &types(&["stage"])));
            assert!(access.is_admin(&token("root")) && access.may_change(&token("root"), CAMERA));
            assert!(
                !access.may_change(&token("cam"), token("reader")) && access.may_change(&token("cam"), token("cam"))
            );
            assert!(!access.may_read(&token("unknown")) && !access.is_admin(&token("unknown")));
        }
    }

    #[test]
    fn a_certificate_may_do_what_is_granted_to_names_like_its_own() {
        let certificate = |text: &str| Principal::Certificate(Name::new(text).unwrap());
        let mut only = rule(&[], &[Right::Register]);
        only.types = patterns(&["camera"]);
        let rules = [
            (patterns(&["*.lab"]), rule(&[], &[Right::Read])),
            (patterns(&["cam-*.lab", "cam"]), only),
            (patterns(&["root"]), rule(&[], &[Right::Admin])),
        ];
        for access in
            [Access::open(), Access::by_rules(Vec::new())].map(|access| access.with_certificates(rules.clone()))
        {
            assert!(access.may_read(&certificate("a.lab")) && !access.may_register(&certificate("a.lab"), "n", &[]));
            let camera = certificate("cam-1.lab");
            assert!(access.may_read(&camera) && access.may_register(&camera, "n", &types(&["camera"])));
            assert!(!access.may_register(&camera, "n", &types(&["stage"])) && !access.is_admin(&camera));
            assert!(access.is_admin(&certificate("root")) && access.may_change(&certificate("root"), camera));
            assert!(
                !access.may_read(&certificate("a.lab.example")) && !access.may_change(&certificate("a.lab"), camera)
            );
            assert!(
                !access.may_read(&Principal::Token(Name::new("a.lab").unwrap())),
                "a token of that name is another"
            );
        }
        let open = Access::open();
        assert!(!open.may_read(&certificate("a")), "where certificates are not asked for, none has a right");
        let without = open.with_certificates([]);
        assert!(without.may_read(&certificate("a")) && without.may_register(&certificate("a"), "n", &[]));
        assert!(!without.is_admin(&certificate("a")));
    }

    #[test]
    fn a_service_is_its_owners_and_the_admins() {
        let access = Access::by_rules(vec![rule(&[STAGE_KEY], &[Right::Admin])]);
        assert!(access.may_change(&CAMERA, CAMERA) && access.may_change(&STAGE, CAMERA));
        assert!(!access.may_change(&CAMERA, STAGE));
        assert!(access.may_change(&CAMERA, NOBODY), "nobody's");
    }
}
