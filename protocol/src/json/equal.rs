//! When two JSON values are the same: numbers by their value (`1`, `1.0` and `10e-1`), texts by what they say,
//! objects whatever the order of their members.
//!
//! Each value has one form that all equal ones share. Numbers of any size are compared exactly, digit by digit.

use std::collections::BTreeMap;

use super::{depth, items, members, push_text, text};

/// How deep values may be nested that are compared: deeper than any request, but not deeper than the stack allows, as
/// what a store has kept may be.
const DEPTH_MAX: usize = 256;

/// The form that all values share that are equal to this one. `None` if there is a lone surrogate in it, which says
/// nothing, or if it is nested too deep.
pub(crate) fn canonical(value: &str) -> Option<String> {
    if depth(value) > DEPTH_MAX {
        return None;
    }
    let mut form = String::with_capacity(value.len());
    push(&mut form, value)?;
    Some(form)
}

/// Whether a value has this form.
pub(crate) fn is(form: &str, value: &str) -> bool {
    let first = |json: &str| match json.as_bytes().first() {
        Some(b'-' | b'0'..=b'9') => Some(b'0'),
        other => other.copied(),
    };
    if first(form) != first(value) {
        return false;
    }
    match first(value) {
        Some(b'"') if !value.contains('\\') => form == value,
        Some(b'"' | b'0' | b'[' | b'{') => canonical(value).is_some_and(|value| value == form),
        _ => form == value,
    }
}

fn push(form: &mut String, value: &str) -> Option<()> {
    match value.as_bytes().first() {
        Some(b'"') => push_text(form, &text(value)?),
        Some(b'-' | b'0'..=b'9') => push_number(form, value),
        Some(b'[') => {
            form.push('[');
            for item in items(value) {
                push(form, item)?;
                form.push(',');
            }
            form.push(']');
        }
        Some(b'{') => {
            // Of equal keys the last counts.
            let mut sorted = BTreeMap::new();
            for (key, value) in members(value) {
                sorted.insert(text(key)?, value);
            }
            form.push('{');
            for (key, value) in sorted {
                push_text(form, &key);
                form.push(':');
                push(form, value)?;
                form.push(',');
            }
            form.push('}');
        }
        _ => form.push_str(value),
    }
    Some(())
}

/// A number without the zeros that say nothing, and a power of ten: `-1.50` is `-15e-1`.
fn push_number(form: &mut String, number: &str) {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |mantissa| ("-", mantissa));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = whole.bytes().chain(fraction.bytes());
    let leading = digits.clone().take_while(|digit| *digit == b'0').count();
    let trailing = digits.clone().rev().take_while(|digit| *digit == b'0').count();
    if leading == whole.len() + fraction.len() {
        return form.push('0');
    }
    // Nobody writes as many digits as would overflow this, but an exponent can be any.
    let moved = i64::try_from(trailing).ok().zip(i64::try_from(fraction.len()).ok());
    let exponent = exponent.parse::<i64>().ok().zip(moved);
    let exponent = exponent.and_then(|(exponent, (trailing, fraction))| exponent.checked_add(trailing - fraction));
    let Some(exponent) = exponent else { return form.push_str(number) };
    form.push_str(sign);
    let last = whole.len() + fraction.len() - trailing;
    form.extend(digits.take(last).skip(leading).map(char::from));
    form.push('e');
    form.push_str(&exponent.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values in groups of equal ones.
    const GROUPS: [&[&str]; 16] = [
        &["null"],
        &["true"],
        &["false"],
        &["0", "-0", "0.0", "0e7", "-0.00E-3"],
        &["1", "1.0", "10e-1", "0.1E+1", "100.00e-2", "1e0"],
        &["-1", "-1.0"],
        &["10", "1e1", "10.0"],
        &["-1.5", "-15e-1", "-1.50"],
        &["12345678901234567890123", "12345678901234567890123.0"],
        &["12345678901234567890124"],
        &["1e99999999999999999999"],
        &["\"1\"", "\"\\u0031\""],
        &["\"a\\/\\u00e9\"", "\"a/é\""],
        &["[1,\"a\"]", "[ 1.0 , \"\\u0061\" ]"],
        &["{\"a\":1,\"b\":[]}", "{\"b\":[ ],\"a\":1.0}", "{\"a\":2,\"b\":[],\"\\u0061\":10e-1}"],
        &["{}", "{ }"],
    ];

    #[test]
    fn equal_values_have_one_form_and_others_another() {
        for (place, group) in GROUPS.iter().enumerate() {
            for value in *group {
                let form = canonical(value).unwrap();
                for (other_place, other_group) in GROUPS.iter().enumerate() {
                    for other in *other_group {
                        assert_eq!(is(&form, other), place == other_place, "{value} and {other}: {form}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_says_nothing_is_equal_to_nothing() {
        for value in ["\"\\ud800\"", "[\"\\ud800\"]", "{\"\\ud800\":1}", "{\"a\":{\"b\":\"\\udc00\"}}"] {
            assert_eq!(canonical(value), None);
            assert!(!is(value, value) || !value.starts_with(['"', '[', '{']));
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(!is("[]", &deep) && canonical(&deep).is_none());
        assert!(!is("[1]", "[[1]]") && !is("[1,2]", "[1]") && !is("[]", "{}") && !is("1", ""));
    }
}
