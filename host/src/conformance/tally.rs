//! What the checks have seen so far, and the verdict on each rule that follows from it.

use std::collections::BTreeMap;

use registry_plugin_api::Capabilities;

use super::Settings;
use super::lane::Mismatch;
use super::report::{Failure, Line, Verdict};
use super::rules::Rule;

/// A rule that was seen broken.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub rule: Rule,
    pub expected: String,
    pub got: String,
    /// What was tried when it was seen.
    pub during: &'static str,
    /// What was done, step by step. Empty if `during` says it.
    pub history: Vec<String>,
}

impl From<Mismatch> for Finding {
    fn from(mismatch: Mismatch) -> Self {
        Finding { rule: mismatch.rule, expected: mismatch.expected, got: mismatch.got, during: "", history: Vec::new() }
    }
}

/// What one check has seen.
#[derive(Default)]
pub(super) struct Seen {
    pub tried: Vec<(Rule, String)>,
    pub broken: Vec<Finding>,
}

/// What all checks so far have seen.
#[derive(Default)]
pub(super) struct Tally {
    claimed: Capabilities,
    not_tried: BTreeMap<Rule, &'static str>,
    tried: BTreeMap<Rule, Vec<String>>,
    broken: BTreeMap<Rule, Finding>,
    /// Why nothing is known about a rule: another that failed first.
    spoiled: BTreeMap<Rule, Rule>,
}

impl Tally {
    pub(super) fn new(claimed: Capabilities, settings: &Settings) -> Self {
        let not_tried = Rule::ALL.into_iter().filter_map(|rule| Some((rule, not_wanted(rule, settings)?)));
        Tally { claimed, not_tried: not_tried.collect(), ..Tally::default() }
    }

    /// Whether the check of a rule is to be made: it is claimed and wanted, and would not only find again, under
    /// another name, what is known to be broken.
    pub(super) fn is_worthwhile(&mut self, rule: Rule, decides: &[Rule]) -> bool {
        let founded_on: &[Rule] = match rule {
            // The histories, which tell these rules apart.
            Rule::Contents | Rule::Close | Rule::Exclusive | Rule::Discover | Rule::Secrets => &[],
            Rule::Text => &[Rule::Outcomes, Rule::Position, Rule::Contents, Rule::Reopen],
            Rule::History => &[Rule::Outcomes, Rule::Position, Rule::Contents, Rule::Reopen, Rule::Pages],
            Rule::Kill => &[Rule::Outcomes, Rule::Position, Rule::Contents, Rule::Reopen, Rule::History],
            Rule::Cancellation => &[Rule::Outcomes, Rule::Position, Rule::Contents, Rule::History],
            _ => &[Rule::Outcomes, Rule::Position, Rule::Contents],
        };
        let founded_on = [Rule::Options, Rule::Runtime].iter().chain(founded_on);
        let spoiled_by = founded_on.copied().find(|rule| self.broken.contains_key(rule));
        if let Some(by) = spoiled_by {
            self.spoil(decides, by);
        }
        rule.is_claimed(self.claimed) && !self.not_tried.contains_key(&rule) && spoiled_by.is_none()
    }

    /// Takes in what a check has seen. Gives the rules that are known to be broken by now, and were not before.
    pub(super) fn take(&mut self, seen: Seen, during: &'static str, decides: &[Rule]) -> Vec<Rule> {
        seen.tried.into_iter().for_each(|(rule, text)| self.tried.entry(rule).or_default().push(text));
        if let Some(first) = seen.broken.first() {
            self.spoil(decides, first.rule);
        }
        let mut news = Vec::new();
        for finding in seen.broken {
            let before = self.broken.get(&finding.rule);
            if before.is_none() {
                news.push(finding.rule);
            }
            if before.is_none_or(|known| known.history.is_empty() && !finding.history.is_empty()) {
                self.broken.insert(finding.rule, Finding { during, ..finding });
            }
        }
        news
    }

    /// Nothing can be said about these rules, because that one is broken.
    pub(super) fn spoil(&mut self, rules: &[Rule], by: Rule) {
        for rule in rules {
            self.spoiled.entry(*rule).or_insert(by);
        }
    }

    /// What is known about the rule.
    pub(super) fn line(&self, rule: Rule) -> Line {
        let tried = self.tried.get(&rule).map(|tried| tried.join("; ")).unwrap_or_default();
        let verdict = match self.broken.get(&rule).cloned() {
            _ if !rule.is_claimed(self.claimed) => Verdict::NotClaimed,
            Some(Finding { expected, got, during, history, .. }) => {
                Verdict::Failed(Failure { expected, got, during, history })
            }
            None if !tried.is_empty() => Verdict::Holds,
            None => match (self.not_tried.get(&rule), self.spoiled.get(&rule)) {
                (None, Some(by)) => Verdict::Undecided(*by),
                (reason, _) => Verdict::NotTried(reason.copied().unwrap_or_default()),
            },
        };
        Line { rule, verdict, tried }
    }
}

/// The setting that leaves nothing to be tried of a rule.
fn not_wanted(rule: Rule, settings: &Settings) -> Option<&'static str> {
    let (amounts, reasons): (&[usize], &[_]) = match rule {
        Rule::Outcomes | Rule::Contents | Rule::Position | Rule::Reopen => {
            (&[settings.histories, settings.steps], &["--histories 0", "--steps 0"])
        }
        Rule::Pages => (&[settings.records], &["--records 0"]),
        Rule::Kill => (&[settings.kills], &["--kills 0"]),
        _ => return None,
    };
    amounts.iter().zip(reasons).find(|(amount, _)| **amount == 0).map(|(_, reason)| *reason)
}
