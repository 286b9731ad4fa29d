//! Whether an arrival is what a dialogue expects.

use crate::dialogue::{Expected, Properties};
use crate::expression::Scope;
use crate::link::Arrival;
use crate::value::Value;

/// Whether `arrival` is the method that is `expected`; captures variables on the way.
pub fn is_expected(expected: &Expected, arrival: &Arrival, scope: &mut Scope) -> Result<bool, String> {
    let (Expected::Method { channel, method, fields, properties, body }, Arrival::Method(said)) = (expected, arrival)
    else {
        return Ok(false);
    };
    if (*channel, *method) != (said.channel, said.method) {
        return Ok(false);
    }
    for (index, expression) in fields {
        if !expression.matches(&said.fields[*index], scope)? {
            return Ok(false);
        }
    }
    let Some(content) = &said.content else {
        return Ok(properties.is_none() && body.is_none());
    };
    if let Some((wanted, open)) = properties
        && !has_properties(wanted, *open, &content.properties, scope)?
    {
        return Ok(false);
    }
    match body {
        Some(body) => body.matches(&Value::Text(content.body.clone()), scope),
        None => Ok(true),
    }
}

fn has_properties(
    wanted: &Properties,
    open: bool,
    found: &[(usize, Value)],
    scope: &mut Scope,
) -> Result<bool, String> {
    if !open && wanted.len() != found.len() {
        return Ok(false);
    }
    for (index, expression) in wanted {
        let value = found.iter().find(|(found, _)| found == index);
        match value {
            Some((_, value)) if expression.matches(value, scope)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}
