//! As much of PromQL as it takes to see which metrics and labels an expression asks for. Whether it is an expression is
//! for `promtool` to say.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::CharIndices;

/// What an expression asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Uses {
    pub selectors: Vec<Selector>,
    /// Labels in `by`, `on` and the like.
    pub grouping: BTreeSet<String>,
}

/// A metric, and the labels that it is chosen by.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Selector {
    pub name: String,
    pub matchers: Vec<Matcher>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Matcher {
    pub label: String,
    /// `=`, `!=`, `=~` or `!~`.
    pub operator: String,
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Sign(char),
}

/// Words that are no metrics where they stand by themselves.
const KEYWORDS: [&str; 10] =
    ["and", "or", "unless", "bool", "offset", "by", "without", "group_left", "group_right", "inf"];
/// What is followed by labels in parentheses.
const GROUPINGS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// Takes an expression, or a line of a scrape, apart.
pub fn uses(expression: &str) -> Result<Uses, String> {
    let tokens = tokens(expression)?;
    let mut uses = Uses::default();
    let mut rest = &tokens[..];
    while let [first, after @ ..] = rest {
        rest = after;
        let Token::Word(word) = first else {
            if *first == Token::Sign('{') {
                return Err(format!("a selector without a name in `{expression}`"));
            }
            continue;
        };
        match after.first() {
            Some(Token::Sign('(')) if GROUPINGS.contains(&word.as_str()) => {
                let labels = after.iter().take_while(|token| **token != Token::Sign(')'));
                uses.grouping.extend(labels.filter_map(Token::word).map(str::to_owned));
                rest = &after[after.iter().position(|token| *token == Token::Sign(')')).unwrap_or(after.len())..];
            }
            // A function.
            Some(Token::Sign('(')) => {}
            // An aggregation.
            Some(Token::Word(next)) if next == "by" || next == "without" => {}
            Some(Token::Sign('{')) => {
                let end = after.iter().position(|token| *token == Token::Sign('}'));
                let end = end.ok_or_else(|| format!("a brace is not closed in `{expression}`"))?;
                uses.selectors.push(Selector { name: word.clone(), matchers: matchers(&after[1..end])? });
                rest = &after[end + 1..];
            }
            _ if KEYWORDS.contains(&word.to_lowercase().as_str()) => {}
            _ => uses.selectors.push(Selector { name: word.clone(), matchers: Vec::new() }),
        }
    }
    Ok(uses)
}

/// The words of a text that metrics could be called.
pub fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| !is_of_word(character)).filter(|word| !word.is_empty())
}

fn matchers(tokens: &[Token]) -> Result<Vec<Matcher>, String> {
    let parts = tokens.split(|token| *token == Token::Sign(','));
    parts.filter(|part| !part.is_empty()).map(matcher).collect()
}

fn matcher(tokens: &[Token]) -> Result<Matcher, String> {
    let [Token::Word(label), operator @ .., Token::Text(value)] = tokens else {
        return Err(format!("no matcher: {tokens:?}"));
    };
    let operator = operator.iter().map(|token| if let Token::Sign(sign) = token { *sign } else { ' ' }).collect();
    Ok(Matcher { label: label.clone(), operator, value: value.clone() })
}

impl Token {
    fn word(&self) -> Option<&str> {
        if let Token::Word(word) = self { Some(word) } else { None }
    }
}

fn tokens(expression: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut characters = expression.char_indices().peekable();
    while let Some((start, character)) = characters.next() {
        match character {
            '"' => tokens.push(Token::Text(text(&mut characters).ok_or("a string is not closed")?)),
            // A range, and what it is measured in: no metrics. Nor are numbers and durations, nor comments.
            '[' => while characters.next_if(|(_, next)| *next != ']').is_some() {},
            '#' => while characters.next_if(|(_, next)| *next != '\n').is_some() {},
            '0'..='9' => while characters.next_if(|(_, next)| is_of_word(*next) || *next == '.').is_some() {},
            _ if is_of_word(character) => {
                let mut end = start + character.len_utf8();
                while let Some((at, next)) = characters.next_if(|(_, next)| is_of_word(*next)) {
                    end = at + next.len_utf8();
                }
                tokens.push(Token::Word(expression[start..end].to_owned()));
            }
            _ if character.is_whitespace() => {}
            _ => tokens.push(Token::Sign(character)),
        }
    }
    Ok(tokens)
}

/// What stands before the closing quotation mark.
fn text(characters: &mut Peekable<CharIndices<'_>>) -> Option<String> {
    let mut text = String::new();
    loop {
        match characters.next()?.1 {
            '"' => return Some(text),
            '\\' => text.push(characters.next()?.1),
            character => text.push(character),
        }
    }
}

fn is_of_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_' || character == ':'
}

#[test]
fn metrics_are_told_from_functions_aggregations_keywords_ranges_and_labels() {
    let expression = r#"
        histogram_quantile(0.99, sum by (job, le) (rate(a_bucket{job="x, {y}", queue=~"$q"}[$__rate_interval]))) > 1e3
        and on (instance) max without (peer) (b offset 1m) * on () group_left (where) c:d:e unless f # g
    "#;
    let uses = uses(expression).unwrap();
    let names: Vec<&str> = uses.selectors.iter().map(|selector| selector.name.as_str()).collect();
    assert_eq!(names, ["a_bucket", "b", "c:d:e", "f"]);
    let matcher = |label: &str, operator: &str, value: &str| Matcher {
        label: label.to_owned(),
        operator: operator.to_owned(),
        value: value.to_owned(),
    };
    assert_eq!(uses.selectors[0].matchers, [matcher("job", "=", "x, {y}"), matcher("queue", "=~", "$q")]);
    let grouping: Vec<&str> = uses.grouping.iter().map(String::as_str).collect();
    assert_eq!(grouping, ["instance", "job", "le", "peer", "where"]);
}

#[test]
fn what_cannot_be_told_is_an_error() {
    for expression in [r#"{job="x"}"#, r#"a{job="x""#, r#"a{job="x}"#, "a{job}"] {
        assert!(uses(expression).is_err(), "{expression}");
    }
}
