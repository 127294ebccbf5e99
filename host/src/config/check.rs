//! What no key can be asked alone.

use super::layer::{Entry, Layer};
use super::schema;

/// Says what is wrong between keys: ports that are the same.
pub(super) fn across_keys(layers: &[Layer]) -> Result<(), Vec<String>> {
    let in_force = |key: &str| layers.iter().flat_map(|layer| &layer.entries).rfind(|entry| entry.key() == key);
    let ports: Vec<&Entry> = schema::PORTS.iter().filter_map(|key| in_force(key)).collect();
    let mut problems = Vec::new();
    for (index, first) in ports.iter().enumerate() {
        for second in &ports[index + 1..] {
            if first.value == second.value && first.value.as_integer() != Some(0) {
                problems.push(format!(
                    "{} and {} are both {} ({}; {}): expected different ports, 0 for a free one",
                    first.key(),
                    second.key(),
                    first.value,
                    first.origin,
                    second.origin
                ));
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}
