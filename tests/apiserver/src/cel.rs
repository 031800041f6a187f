//! The part of CEL that rules of custom kinds and match conditions of webhooks are usually written in, over plain JSON. Pure.
//!
//! Known: literals, lists, fields, indexes, `in`, arithmetic, comparison, `&&` `||` `!` `?:`, `has`, `size`, the macros `all`, `exists`,
//! `exists_one`, `filter` and `map`, the string functions `startsWith`, `endsWith`, `contains` and `matches`, and `int`, `string`, `type`-less
//! equality. Not known: optionals, maps as literals, durations, and Kubernetes' libraries (URLs, quantities, IP addresses). An expression
//! with what is not known does not parse, and who asked decides what that means.

mod eval;
mod parse;

use std::collections::BTreeMap;

use serde_json::Value;

/// A parsed expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Program(parse::Expr);

/// The names that an expression may use.
pub(crate) type Scope = BTreeMap<String, Value>;

impl Program {
    /// Reads an expression.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        parse::parse(text).map(Self)
    }

    /// Whether it holds. The error is what CEL calls one: a missing key, or a type that an operator does not take.
    pub(crate) fn holds(&self, scope: &Scope) -> Result<bool, String> {
        match eval::eval(&self.0, scope)? {
            Value::Bool(truth) => Ok(truth),
            other => Err(format!("the expression is no bool but {other}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(text: &str) -> Result<bool, String> {
        let this = json!({"n": 3, "s": "abc", "l": ["a", "b"], "o": {"k": "v"}, "e": []});
        Program::parse(text)?.holds(&[("self".to_owned(), this)].into())
    }

    #[test]
    fn what_rules_are_written_in() {
        for (text, expected) in [
            ("self.n == 3 && self.s != 'x'", true),
            ("self.n + 1 > 3 ? self.s.startsWith('a') : false", true),
            ("self.s in ['abc', \"d\"]", true),
            ("'k' in self.o && self.o['k'] == 'v'", true),
            ("has(self.n) && !has(self.missing)", true),
            ("has(self.missing) || size(self.l) == 2", true),
            ("self.l.all(x, x.size() == 1) && self.l.exists(x, x == 'b')", true),
            ("self.l.exists_one(x, x == 'a') && !self.l.exists_one(x, x != 'z')", true),
            ("self.l.filter(x, x != 'a') == ['b'] && self.l.map(x, x + '!') == ['a!', 'b!']", true),
            ("self.s.matches('^[a-c]+$') && self.s.contains('b') && self.s.endsWith('c')", true),
            ("self.e.all(x, false) && -1 < 0 && 7 % 4 == 3 && 2 * 3 <= 6.0", true),
            ("string(self.n) == '3' && int('4') == 4", true),
            ("self.missing == 1 && false", false),
            ("true || self.missing == 1", true),
            ("self.n >= 4", false),
        ] {
            assert_eq!(holds(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_said_is_an_error_and_not_a_no() {
        assert!(holds("self.missing == 1").unwrap_err().contains("no such key: missing"));
        assert!(holds("self.n == 3 && self.missing").is_err());
        assert!(holds("self.n < 'a'").is_err());
        assert!(holds("self.n").is_err());
    }

    #[test]
    fn what_is_not_known_does_not_parse() {
        for text in [
            "self.?x",
            "self.n ==",
            "(self.n",
            "self.s.url()",
            "duration('1s') == 1",
            "{'a': 1} == 1",
            "'open",
        ] {
            assert!(Program::parse(text).is_err(), "{text}");
        }
    }
}
