//! How the command line shows what it is told: the options that verbs have for it. On the wire they mean nothing.

use crate::model::template::Template;
use clap::Args;
use std::str::FromStr;

/// How the command line shows something.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum OutputFormat {
    /// Aligned columns, or a page.
    #[default]
    Table,
    /// JSON.
    Json,
    /// A line of one's own for each thing.
    Template(Template),
}

impl FromStr for OutputFormat {
    type Err = String;

    fn from_str(s: &str) -> Result<OutputFormat, String> {
        match s {
            "table" => Ok(OutputFormat::Table),
            "json" => Ok(OutputFormat::Json),
            template if template.contains("{{") => Template::parse(template).map(OutputFormat::Template),
            _ => Err("it is table, json, or a template such as '{{.name}} {{.state}}'".to_owned()),
        }
    }
}

/// Options of every verb that shows something.
#[derive(Debug, Clone, PartialEq, Eq, Args, Default)]
pub struct Showing {
    /// How to show it: table, json, or a template such as '{{.name}} {{.state}}' over the fields of the JSON (on the command line) [default: table]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<OutputFormat>,
    /// Show everything in full, also where a line gets wider than the terminal (on the command line)
    #[arg(long)]
    pub no_trunc: bool,
}

impl Showing {
    /// The format that was asked for, or a table.
    pub fn format(&self) -> OutputFormat {
        self.format.clone().unwrap_or_default()
    }
}

/// Arguments of `list`.
#[derive(Debug, Clone, PartialEq, Eq, Args, Default)]
pub struct ListArgs {
    /// Show ended instances too (they always are; docker's fingers may type it)
    #[arg(short, long, hide = true)]
    pub all: bool,
    /// Names only, one a line
    #[arg(short, long)]
    pub quiet: bool,
    /// Only those that match: name=PART, module=NAME, status=STATE, exited=CODE, label=KEY[=VALUE]
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// Show it anew whenever something happens: in place on a terminal, otherwise below each other (on the command line)
    #[arg(short, long)]
    pub watch: bool,
    /// How.
    #[command(flatten)]
    pub show: Showing,
}

/// Arguments of `modules`.
#[derive(Debug, Clone, PartialEq, Eq, Args, Default)]
pub struct ModulesArgs {
    /// Names only, one a line (on the command line)
    #[arg(short, long)]
    pub quiet: bool,
    /// How.
    #[command(flatten)]
    pub show: Showing,
}

/// Arguments of `limits`.
#[derive(Debug, Clone, PartialEq, Eq, Args, Default)]
pub struct LimitsArgs {
    /// Flags only, one a line (on the command line)
    #[arg(short, long)]
    pub quiet: bool,
    /// How.
    #[command(flatten)]
    pub show: Showing,
}

/// Arguments of `inspect`.
#[derive(Debug, Clone, PartialEq, Eq, Args, Default)]
pub struct InspectArgs {
    /// How to show it: json, table for a page to read, or a template such as '{{.reason}}' over the fields of the JSON (on the
    /// command line) [default: a page on a terminal, otherwise json]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<OutputFormat>,
    /// Show everything in full, also where a line gets wider than the terminal (on the command line)
    #[arg(long)]
    pub no_trunc: bool,
    /// The instances
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

/// Arguments of `stats`.
#[derive(Debug, Clone, PartialEq, Eq, Args, Default)]
pub struct StatsArgs {
    /// Ended instances too
    #[arg(short, long, conflicts_with = "names")]
    pub all: bool,
    /// Show them once [default: on a terminal, anew each second] (on the command line)
    #[arg(long)]
    pub no_stream: bool,
    /// Show them anew each second also where that is no terminal: below each other (on the command line)
    #[arg(short, long, conflicts_with = "no_stream")]
    pub watch: bool,
    /// How.
    #[command(flatten)]
    pub show: Showing,
    /// The instances [default: all that are alive]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_a_word_or_a_template() {
        assert_eq!("table".parse(), Ok(OutputFormat::Table));
        assert_eq!("json".parse(), Ok(OutputFormat::Json));
        assert!(matches!("{{.name}}".parse(), Ok(OutputFormat::Template(_))));
        assert!("yaml".parse::<OutputFormat>().unwrap_err().contains("{{.name}}"));
        assert!("{{.name".parse::<OutputFormat>().unwrap_err().contains("}}"));
        assert_eq!(Showing::default().format(), OutputFormat::Table);
    }
}
