//! A small template language for `--format`, in docker's spelling: `{{.name}} {{.state}}` over the fields of the JSON.
//!
//! `{{.field.sub}}` is the text of a field, `{{json .field}}` and `{{json .}}` are its JSON on one line. In the text between,
//! `\t`, `\n` and `\\` are what they are in a shell's `printf`. There is nothing else: no conditions, no functions.

use crate::model::escape;
use serde_json::Value;

/// A template that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field { path: Vec<String>, json: bool },
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    ///
    /// One line that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Template, String> {
        let (mut parts, mut rest) = (vec![], text);
        while let Some((before, behind)) = rest.split_once("{{") {
            if !before.is_empty() {
                parts.push(Part::Text(unescaped(before)));
            }
            let Some((inside, behind)) = behind.split_once("}}") else {
                return Err("a {{ of the template has no }}".to_owned());
            };
            parts.push(field(inside)?);
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(unescaped(rest)));
        }
        Ok(Template { parts })
    }

    /// The template filled in, without a line end. What comes from `value` is escaped; the template is the asker's own.
    ///
    /// # Errors
    ///
    /// One line that names a field that is not there, and those that are.
    pub fn fill(&self, value: &Value) -> Result<String, String> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Field { path, json } => {
                    let found = find(value, path)?;
                    out.push_str(&if *json { escape::json(found.to_string()) } else { text_of(found) });
                }
            }
        }
        Ok(out)
    }
}

/// `.name`, `.labels.tier`, `json .`
fn field(inside: &str) -> Result<Part, String> {
    let bad = || {
        let shown = escape::short(inside.trim(), 40);
        format!("'{{{{{shown}}}}}' is no field; they look like {{{{.name}}}}, {{{{.labels.tier}}}} or {{{{json .}}}}")
    };
    let inside = inside.trim();
    let (json, path) = match inside.strip_prefix("json") {
        Some(path) if path.starts_with([' ', '\t']) => (true, path.trim()),
        _ => (false, inside),
    };
    let path = path.strip_prefix('.').ok_or_else(bad)?;
    if path.is_empty() {
        return if json { Ok(Part::Field { path: vec![], json }) } else { Err(bad()) };
    }
    if path.contains([' ', '\t', '|', '"']) || path.split('.').any(str::is_empty) {
        return Err(bad());
    }
    Ok(Part::Field { path: path.split('.').map(str::to_owned).collect(), json })
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('\\', Some(escaped @ ('t' | 'n' | '\\'))) => {
                out.push(match escaped {
                    't' => '\t',
                    'n' => '\n',
                    other => other,
                });
                chars.next();
            }
            _ => out.push(c),
        }
    }
    out
}

/// What a path leads to. A field that an object does not have is a slip; a label that an instance does not have, or something
/// behind what is null, is nothing.
fn find<'a>(value: &'a Value, path: &[String]) -> Result<&'a Value, String> {
    const LABELS: &str = "labels";
    let mut at = value;
    for (depth, step) in path.iter().enumerate() {
        at = match at {
            Value::Object(object) if depth > 0 && path[depth - 1] == LABELS => {
                // Keys of labels have dots.
                return Ok(object.get(&path[depth..].join(".")).unwrap_or(&Value::Null));
            }
            Value::Object(object) => object.get(step).ok_or_else(|| {
                let there: Vec<&str> = object.keys().map(String::as_str).collect();
                let within = if depth > 0 { format!(" in '{}'", path[..depth].join(".")) } else { String::new() };
                format!("there is no field '{}'{within}; there are: {}", escape::short(step, 40), there.join(", "))
            })?,
            Value::Array(array) => step.parse::<usize>().ok().and_then(|n| array.get(n)).unwrap_or(&Value::Null),
            Value::Null => &Value::Null,
            _ => return Err(format!("there is nothing in '{}'", path[..depth].join("."))),
        };
    }
    Ok(at)
}

/// The text of a value: a string as it is, null as nothing, a list or an object as JSON.
fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => escape::line(text).into_owned(),
        other => escape::json(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn fill(template: &str) -> Result<String, String> {
        let value = json!({
            "name": "web", "exit_code": null, "run": 3, "remove": false, "args": ["a", "b"],
            "labels": { "tier": "front", "a.b": "dotted" }, "stopped": { "rung": "tick" }, "message": "x\u{1b}[2J",
        });
        Template::parse(template)?.fill(&value)
    }

    #[test]
    fn fields_are_filled_in() {
        for (template, filled) in [
            ("{{.name}} {{.run}}", "web 3"),
            ("{{ .name }}:{{.exit_code}}|{{.remove}}", "web:|false"),
            ("no field", "no field"),
            ("", ""),
            ("{{.labels.tier}} {{.labels.a.b}} {{.labels.other}}.", "front dotted ."),
            ("{{.stopped.rung}} {{.args}} {{.args.1}} {{.args.7}}", "tick [\"a\",\"b\"] b "),
            (
                "{{json .name}} {{json .exit_code}} {{json .labels}}",
                "\"web\" null {\"a.b\":\"dotted\",\"tier\":\"front\"}",
            ),
            ("{{.exit_code.below}}", ""),
            (r"{{.name}}\t{{.run}}\n\\n\x", "web\t3\n\\n\\x"),
            ("{{.message}} {{json .message}}", r#"x\x1b[2J "x\u001b[2J""#),
            ("} {{.name}} }} {", "} web }} {"),
        ] {
            assert_eq!(fill(template).as_deref(), Ok(filled), "{template}");
        }
        assert!(fill("{{json .}}").unwrap().starts_with("{\"args\":[\"a\",\"b\"],"));
    }

    #[test]
    fn a_slip_is_one_line_that_says_what_there_is() {
        assert_eq!(
            fill("{{.Names}}").unwrap_err(),
            "there is no field 'Names'; there are: args, exit_code, labels, message, name, remove, run, stopped"
        );
        assert_eq!(fill("{{.stopped.x}}").unwrap_err(), "there is no field 'x' in 'stopped'; there are: rung");
        assert_eq!(fill("{{.name.x}}").unwrap_err(), "there is nothing in 'name'");
        assert_eq!(fill("{{.name}").unwrap_err(), "a {{ of the template has no }}");
        for bad in [
            "{{}}",
            "{{name}}",
            "{{.}}",
            "{{json}}",
            "{{json name}}",
            "{{.a..b}}",
            "{{if .name}}",
            "{{.a | b}}",
            "{{jsonx .}}",
        ] {
            assert!(fill(bad).unwrap_err().contains("is no field; they look like {{.name}}"), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_template_panics_and_text_stays(text in "[^\\\\{]{0,20}", any in "\\PC{0,20}|(\\{\\{|\\}\\}|\\.|json |[a-z]){0,12}") {
            prop_assert_eq!(fill(&text).unwrap(), text);
            let _outcome = fill(&any);
        }
    }
}
