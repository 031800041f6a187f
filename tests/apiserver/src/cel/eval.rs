//! Tree to value.

use std::cmp::Ordering;

use regex::Regex;
use serde_json::Value;

use super::Scope;
use super::parse::Expr;

pub(super) fn eval(expr: &Expr, scope: &Scope) -> Result<Value, String> {
    match expr {
        Expr::Literal(value) => Ok(value.clone()),
        Expr::Name(name) => {
            scope.get(name).cloned().ok_or_else(|| format!("undeclared reference to {name:?}"))
        }
        Expr::List(items) => {
            items.iter().map(|item| eval(item, scope)).collect::<Result<Vec<_>, _>>().map(Value::Array)
        }
        Expr::Field(of, field) => key(&eval(of, scope)?, &field.as_str().into()),
        Expr::Index(of, index) => key(&eval(of, scope)?, &eval(index, scope)?),
        Expr::Has(of, field) => Ok(eval(of, scope)?.get(field).is_some_and(|value| !value.is_null()).into()),
        Expr::Not(of) => Ok((!truth(&eval(of, scope)?)?).into()),
        Expr::Negative(of) => arithmetic("-", &0.into(), &eval(of, scope)?),
        Expr::Choice(parts) => {
            let [condition, yes, no] = &**parts;
            eval(if truth(&eval(condition, scope)?)? { yes } else { no }, scope)
        }
        Expr::Binary(operator @ ("&&" | "||"), left, right) => {
            logical(*operator == "||", eval(left, scope), || eval(right, scope))
        }
        Expr::Binary(operator, left, right) => binary(operator, &eval(left, scope)?, &eval(right, scope)?),
        Expr::Call(name, arguments) => {
            let values: Vec<_> =
                arguments.iter().map(|argument| eval(argument, scope)).collect::<Result<_, _>>()?;
            call(name, &values)
        }
        Expr::Macro(name, over, variable, body) => each(name, &eval(over, scope)?, variable, body, scope),
    }
}

fn truth(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| no_overload("a condition", value))
}

fn no_overload(what: &str, value: &Value) -> String {
    format!("no such overload: {what} of {value}")
}

fn key(of: &Value, key: &Value) -> Result<Value, String> {
    let found = match (of, key) {
        (Value::Object(map), Value::String(name)) => map.get(name),
        (Value::Array(items), index) => index.as_u64().and_then(|at| items.get(usize::try_from(at).ok()?)),
        _ => return Err(no_overload("a field", of)),
    };
    found.cloned().ok_or_else(|| {
        format!("no such key: {}", key.as_str().map_or_else(|| key.to_string(), str::to_owned))
    })
}

/// Either side may decide, whatever the other is: `decisive` is the truth that does.
fn logical(
    decisive: bool,
    left: Result<Value, String>,
    right: impl FnOnce() -> Result<Value, String>,
) -> Result<Value, String> {
    let left = left.and_then(|value| truth(&value));
    if left == Ok(decisive) {
        return Ok(decisive.into());
    }
    let right = right().and_then(|value| truth(&value));
    if right == Ok(decisive) {
        return Ok(decisive.into());
    }
    left.and(right).map(Value::Bool)
}

fn binary(operator: &str, left: &Value, right: &Value) -> Result<Value, String> {
    let ordered = |wanted: fn(Ordering) -> bool| order(left, right).map(|order| wanted(order).into());
    match operator {
        "==" => Ok(equal(left, right).into()),
        "!=" => Ok((!equal(left, right)).into()),
        "<" => ordered(Ordering::is_lt),
        "<=" => ordered(Ordering::is_le),
        ">" => ordered(Ordering::is_gt),
        ">=" => ordered(Ordering::is_ge),
        "in" => match (left, right) {
            (_, Value::Array(items)) => Ok(items.iter().any(|item| equal(item, left)).into()),
            (Value::String(name), Value::Object(map)) => Ok(map.contains_key(name).into()),
            _ => Err(no_overload("in", right)),
        },
        _ => arithmetic(operator, left, right),
    }
}

fn equal(left: &Value, right: &Value) -> bool {
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left.total_cmp(&right).is_eq(),
        _ => left == right,
    }
}

fn order(left: &Value, right: &Value) -> Result<Ordering, String> {
    match (left, right) {
        (Value::String(left), Value::String(right)) => Ok(left.cmp(right)),
        _ => match (left.as_f64(), right.as_f64()) {
            (Some(left), Some(right)) => Ok(left.total_cmp(&right)),
            _ => Err(no_overload("a comparison", right)),
        },
    }
}

fn arithmetic(operator: &str, left: &Value, right: &Value) -> Result<Value, String> {
    match (operator, left, right) {
        ("+", Value::String(left), Value::String(right)) => return Ok(format!("{left}{right}").into()),
        ("+", Value::Array(left), Value::Array(right)) => {
            return Ok([left.clone(), right.clone()].concat().into());
        }
        _ => {}
    }
    if let (Some(left), Some(right)) = (left.as_i64(), right.as_i64()) {
        let result = match operator {
            "+" => left.checked_add(right),
            "-" => left.checked_sub(right),
            "*" => left.checked_mul(right),
            "/" => left.checked_div(right),
            _ => left.checked_rem(right),
        };
        return result.map(Into::into).ok_or_else(|| format!("{left} {operator} {right} has no result"));
    }
    let (Some(left), Some(right)) = (left.as_f64(), right.as_f64()) else {
        return Err(no_overload(operator, left));
    };
    match operator {
        "+" => Ok((left + right).into()),
        "-" => Ok((left - right).into()),
        "*" => Ok((left * right).into()),
        "/" => Ok((left / right).into()),
        _ => Err(format!("{operator} is of whole numbers")),
    }
}

fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    match (name, arguments) {
        ("size", [Value::String(text)]) => Ok(text.chars().count().into()),
        ("size", [Value::Array(items)]) => Ok(items.len().into()),
        ("size", [Value::Object(map)]) => Ok(map.len().into()),
        ("string", [Value::String(text)]) => Ok(text.clone().into()),
        ("string", [value @ (Value::Number(_) | Value::Bool(_))]) => Ok(value.to_string().into()),
        ("int", [Value::String(text)]) => {
            text.parse::<i64>().map(Into::into).map_err(|error| error.to_string())
        }
        ("int", [value @ Value::Number(_)]) if value.is_i64() => Ok(value.clone()),
        ("startsWith", [Value::String(text), Value::String(part)]) => {
            Ok(text.starts_with(part.as_str()).into())
        }
        ("endsWith", [Value::String(text), Value::String(part)]) => Ok(text.ends_with(part.as_str()).into()),
        ("contains", [Value::String(text), Value::String(part)]) => Ok(text.contains(part.as_str()).into()),
        ("matches", [Value::String(text), Value::String(pattern)]) => {
            Regex::new(pattern).map(|regex| regex.is_match(text).into()).map_err(|error| error.to_string())
        }
        _ => Err(no_overload(name, arguments.first().unwrap_or(&Value::Null))),
    }
}

fn each(name: &str, over: &Value, variable: &str, body: &Expr, scope: &Scope) -> Result<Value, String> {
    let items: Vec<Value> = match over {
        Value::Array(items) => items.clone(),
        Value::Object(map) => map.keys().map(|key| key.clone().into()).collect(),
        _ => return Err(no_overload(name, over)),
    };
    let of = |item: &Value| {
        let mut inner = scope.clone();
        inner.insert(variable.to_owned(), item.clone());
        eval(body, &inner)
    };
    let decided = |decisive: bool| {
        items.iter().try_fold(Ok(Value::Bool(!decisive)), |so_far, item| {
            let result = logical(decisive, so_far, || of(item));
            // A decision ends it; an error may still be outvoted.
            if result == Ok(decisive.into()) { Err(result) } else { Ok(result) }
        })
    };
    match name {
        "all" => decided(false).unwrap_or_else(|decision| decision),
        "exists" => decided(true).unwrap_or_else(|decision| decision),
        "map" => items.iter().map(of).collect::<Result<Vec<_>, _>>().map(Value::Array),
        _ => {
            let mut chosen = Vec::new();
            for item in &items {
                if truth(&of(item)?)? {
                    chosen.push(item.clone());
                }
            }
            Ok(if name == "filter" { Value::Array(chosen) } else { (chosen.len() == 1).into() })
        }
    }
}
