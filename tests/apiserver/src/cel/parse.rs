//! Text to tree.

use serde_json::Value;

/// A node of an expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expr {
    Literal(Value),
    Name(String),
    List(Vec<Expr>),
    Field(Box<Expr>, String),
    Index(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    Negative(Box<Expr>),
    Binary(&'static str, Box<Expr>, Box<Expr>),
    Choice(Box<[Expr; 3]>),
    /// A function or method; of a method the first argument is what it is called on.
    Call(&'static str, Vec<Expr>),
    /// A method with a variable of its own: over what, which name, and what of each.
    Macro(&'static str, Box<Expr>, String, Box<Expr>),
    Has(Box<Expr>, String),
}

/// The operators, by how weakly they bind. Longer ones before those they begin with.
const LEVELS: [&[&str]; 5] =
    [&["||"], &["&&"], &["==", "!=", "<=", ">=", "<", ">", "in"], &["+", "-"], &["*", "/", "%"]];
const FUNCTIONS: [&str; 3] = ["size", "int", "string"];
const METHODS: [&str; 5] = ["size", "startsWith", "endsWith", "contains", "matches"];
const MACROS: [&str; 5] = ["all", "exists_one", "exists", "filter", "map"];

pub(super) fn parse(text: &str) -> Result<Expr, String> {
    let mut parser = Parser { rest: text };
    let expr = parser.choice()?;
    parser.space();
    if parser.rest.is_empty() { Ok(expr) } else { Err(format!("unexpected {:?}", parser.rest)) }
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Takes a sign or word, if it comes next. A word must end where it ends.
    fn takes(&mut self, wanted: &str) -> bool {
        self.space();
        let Some(after) = self.rest.strip_prefix(wanted) else { return false };
        let is_word = wanted.ends_with(|c: char| c.is_ascii_alphanumeric());
        if is_word && after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
            return false;
        }
        self.rest = after;
        true
    }

    fn expects(&mut self, wanted: &str) -> Result<(), String> {
        if self.takes(wanted) { Ok(()) } else { Err(format!("expected {wanted:?} before {:?}", self.rest)) }
    }

    fn word(&mut self) -> Result<String, String> {
        self.space();
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (word, after) = self.rest.split_at(end);
        if word.is_empty() || word.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(format!("expected a name before {:?}", self.rest));
        }
        self.rest = after;
        Ok(word.to_owned())
    }

    fn choice(&mut self) -> Result<Expr, String> {
        let condition = self.binary(0)?;
        if !self.takes("?") {
            return Ok(condition);
        }
        let yes = self.choice()?;
        self.expects(":")?;
        Ok(Expr::Choice(Box::new([condition, yes, self.choice()?])))
    }

    fn binary(&mut self, level: usize) -> Result<Expr, String> {
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        while let Some(operator) = operators.iter().find(|operator| self.takes(operator)) {
            left = Expr::Binary(operator, Box::new(left), Box::new(self.binary(level + 1)?));
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, String> {
        if self.takes("!") {
            return Ok(Expr::Not(Box::new(self.unary()?)));
        }
        if self.takes("-") {
            return Ok(Expr::Negative(Box::new(self.unary()?)));
        }
        let mut expr = self.primary()?;
        loop {
            if self.takes("[") {
                let index = self.choice()?;
                self.expects("]")?;
                expr = Expr::Index(Box::new(expr), Box::new(index));
            } else if self.takes(".") {
                let name = self.word()?;
                expr = if self.takes("(") {
                    self.method(expr, &name)?
                } else {
                    Expr::Field(Box::new(expr), name)
                };
            } else {
                return Ok(expr);
            }
        }
    }

    fn method(&mut self, on: Expr, name: &str) -> Result<Expr, String> {
        if let Some(found) = MACROS.into_iter().find(|known| *known == name) {
            let variable = self.word()?;
            self.expects(",")?;
            let body = self.choice()?;
            self.expects(")")?;
            return Ok(Expr::Macro(found, Box::new(on), variable, Box::new(body)));
        }
        let found = METHODS
            .into_iter()
            .find(|known| *known == name)
            .ok_or_else(|| format!("unknown method {name:?}"))?;
        let mut arguments = vec![on];
        arguments.extend(self.list(")")?);
        let wanted = if found == "size" { 1 } else { 2 };
        if arguments.len() == wanted {
            Ok(Expr::Call(found, arguments))
        } else {
            Err(format!("arguments of {name:?}"))
        }
    }

    /// What comes up to the closing sign, between commas.
    fn list(&mut self, close: &str) -> Result<Vec<Expr>, String> {
        let mut items = Vec::new();
        while !self.takes(close) {
            if !items.is_empty() {
                self.expects(",")?;
            }
            items.push(self.choice()?);
        }
        Ok(items)
    }

    fn primary(&mut self) -> Result<Expr, String> {
        self.space();
        if self.takes("(") {
            let expr = self.choice()?;
            self.expects(")")?;
            return Ok(expr);
        }
        if self.takes("[") {
            return Ok(Expr::List(self.list("]")?));
        }
        for (word, value) in
            [("true", Value::Bool(true)), ("false", Value::Bool(false)), ("null", Value::Null)]
        {
            if self.takes(word) {
                return Ok(Expr::Literal(value));
            }
        }
        match self.rest.chars().next() {
            Some(quote @ ('\'' | '"')) => self.string(quote),
            Some(sign) if sign.is_ascii_digit() => self.number(),
            _ => self.name(),
        }
    }

    fn name(&mut self) -> Result<Expr, String> {
        let name = self.word()?;
        if !self.takes("(") {
            return Ok(Expr::Name(name));
        }
        let mut arguments = self.list(")")?;
        if name == "has" {
            return match arguments.pop() {
                Some(Expr::Field(of, field)) if arguments.is_empty() => Ok(Expr::Has(of, field)),
                _ => Err("has() takes a field".into()),
            };
        }
        let found = FUNCTIONS
            .into_iter()
            .find(|known| *known == name)
            .ok_or_else(|| format!("unknown function {name:?}"))?;
        if arguments.len() == 1 {
            Ok(Expr::Call(found, arguments))
        } else {
            Err(format!("arguments of {name:?}"))
        }
    }

    fn string(&mut self, quote: char) -> Result<Expr, String> {
        let mut text = String::new();
        let mut signs = self.rest.char_indices().skip(1);
        while let Some((at, sign)) = signs.next() {
            match sign {
                sign if sign == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(Expr::Literal(text.into()));
                }
                '\\' => match signs.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, escaped)) if !escaped.is_alphanumeric() => text.push(escaped),
                    _ => return Err("an escape that is not known".into()),
                },
                sign => text.push(sign),
            }
        }
        Err("a string without an end".into())
    }

    fn number(&mut self) -> Result<Expr, String> {
        let end = self.rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(self.rest.len());
        let (number, after) = self.rest.split_at(end);
        self.rest = after;
        serde_json::from_str(number).map(Expr::Literal).map_err(|_| format!("{number:?} is no number"))
    }
}
