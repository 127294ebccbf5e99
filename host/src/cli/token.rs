//! `token`: a new token, and the lines that let its holder in.

use clap::Args;
use toml::{Table, Value};

use super::EXIT_CODES;
use super::output::{self, Failure};
use crate::config::{RIGHTS, token_problem};
use crate::security::token::{Hash, Token};

/// What `token` is asked for.
#[derive(Args, Clone, Debug)]
pub(super) struct NewToken {
    /// What the registry's log, and the services that its holder registers, call it by
    name: String,
    /// What its holder may do, with commas between
    #[arg(long, value_name = "RIGHT", value_delimiter = ',', default_value = "read", value_parser = RIGHTS)]
    allow: Vec<String>,
    /// With register: only services all of whose types match one of these; * stands for any text. May be repeated
    #[arg(long = "type", value_name = "PATTERN")]
    types: Vec<String>,
    /// With register: only services whose name matches one of these; * stands for any text. May be repeated
    #[arg(long = "named", value_name = "PATTERN")]
    names: Vec<String>,
}

/// What `--help` says after the options.
pub(super) fn help() -> String {
    format!(
        "\
The token is shown once. The registry keeps only a hash of it, by which nobody can be let in.

Examples:
  registry token dashboard
  registry token ci --allow read,register --type 'ci-*'
  TOKEN=$(registry token prometheus)      what registry.toml needs is on standard error
  curl -H 'Authorization: Bearer TOKEN' http://127.0.0.1:5559/v1/services

{EXIT_CODES}"
    )
}

/// Makes a token, and says how to go on.
pub(super) fn token(wanted: &NewToken) -> Result<(), Failure> {
    let token = Token::generate();
    let mut table = Table::new();
    table.insert("name".into(), wanted.name.clone().into());
    table.insert("hash".into(), Hash::of(token.as_str()).to_string().into());
    for (key, list) in [("allow", &wanted.allow), ("types", &wanted.types), ("names", &wanted.names)] {
        if !list.is_empty() {
            table.insert(key.into(), Value::from(list.clone()));
        }
    }
    if let Some(problem) = token_problem(&table) {
        return Err(Failure::Failed(problem));
    }
    let lines: Vec<String> = table.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    // Alone on standard output, so that it can be kept in a file or a variable.
    output::line(token.as_str())?;
    output::advise(&format!(
        "\nThat is the token: it is not shown again. Next, in registry.toml:\n\n[[http.tokens]]\n{}",
        lines.join("\n")
    ));
    Ok(())
}
