//! What file and environment say, setting by setting, before anything is made of it.
//!
//! In: the text of the file, the environment.  Out: [`Values`]: full name to value, each of the kind that the schema wants, and where it was given.
//! The environment wins over the file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use secrecy::SecretString;

use super::ConfigError;
use super::schema::{self, Kind, SETTINGS, Setting};

/// Variables that begin with `BYGONE_` and are no settings.
const OTHER_VARIABLES: [&str; 4] = ["BYGONE_CONFIG", "BYGONE_CLUSTER", "BYGONE_REPO", "BYGONE_LOG"];
/// What begins like this is not ours to judge.
const TEST_PREFIX: &str = "BYGONE_TEST_";

/// A value of the right kind.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    Bool(bool),
    Number(i64),
    Words(Vec<String>),
    Secret(SecretString),
}

/// All values given, by full name (`repo.1.path`).
#[derive(Debug, Default)]
pub(super) struct Values {
    given: BTreeMap<String, (Value, String)>,
}

impl Values {
    /// Takes the text of a TOML file in; `file` is its name for messages.
    pub(super) fn add_file(&mut self, file: &str, text: &str) -> Result<(), ConfigError> {
        let table: toml::Table = text.parse().map_err(|source| ConfigError::NotToml { file: file.to_owned(), source: Box::new(source) })?;
        self.add_table(file, "", &table)
    }

    fn add_table(&mut self, file: &str, prefix: &str, table: &toml::Table) -> Result<(), ConfigError> {
        for (key, value) in table {
            let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match (value, schema::find(&name)) {
                (_, Some(setting)) => self.add(setting, name, file_value(setting, value), file)?,
                (toml::Value::Table(inner), None) => self.add_table(file, &name, inner)?,
                (_, None) => return Err(ConfigError::Unknown { suggestion: schema::suggestion(&name), name, origin: file.to_owned() }),
            }
        }
        Ok(())
    }

    /// Takes the `BYGONE_*` variables in.
    pub(super) fn add_environment(&mut self, variables: impl Iterator<Item = (String, String)>) -> Result<(), ConfigError> {
        for (variable, text) in variables.filter(|(name, _)| name.starts_with("BYGONE_")) {
            if OTHER_VARIABLES.contains(&variable.as_str()) || variable.starts_with(TEST_PREFIX) {
                continue;
            }
            let Some((setting, name)) = self.setting_of(&variable) else {
                return Err(ConfigError::Unknown {
                    suggestion: variable_suggestion(&variable),
                    name: variable,
                    origin: "the environment".to_owned(),
                });
            };
            self.add(setting, name, env_value(setting, &text), &variable)?;
        }
        Ok(())
    }

    /// The setting that a variable stands for. A cluster may have a name with `-` or `_` in it, which look alike in a variable: the file decides.
    fn setting_of(&self, variable: &str) -> Option<(&'static Setting, String)> {
        let rest = variable.strip_prefix("BYGONE_")?;
        SETTINGS.iter().find_map(|setting| {
            let form = schema::env_form(setting.name);
            let Some((before, after)) = form.split_once('*') else {
                return (rest == form).then(|| (setting, setting.name.to_owned()));
            };
            let which = rest.strip_prefix(before)?.strip_suffix(after).filter(|which| !which.is_empty())?;
            let kind = setting.name.split('.').next().unwrap_or_default();
            let fits = kind != "repo" || which.bytes().all(|b| b.is_ascii_digit());
            let known = self.parts(kind).into_iter().find(|part| schema::env_form(part) == which);
            fits.then(|| (setting, setting.name.replace('*', &known.unwrap_or_else(|| which.to_lowercase()))))
        })
    }

    fn add(&mut self, setting: &Setting, name: String, value: Option<Value>, origin: &str) -> Result<(), ConfigError> {
        if setting.kind == Kind::Secret && value.is_none() {
            let variable = setting.variable().replace('*', &schema::env_form(setting.matches(&name).unwrap_or_default()));
            return Err(ConfigError::SecretInFile { name, file: origin.to_owned(), variable });
        }
        let Some(value) = value else {
            return Err(ConfigError::WrongKind { name, origin: origin.to_owned(), wanted: wanted(setting.kind) });
        };
        self.given.insert(name, (value, origin.to_owned()));
        Ok(())
    }

    /// The different parts in place of `*` below `kind` (`repo` or `cluster`), sorted.
    pub(super) fn parts(&self, kind: &str) -> Vec<String> {
        let mut parts: Vec<String> =
            self.given.keys().filter_map(|name| name.strip_prefix(kind)?.strip_prefix('.')?.split('.').next()).map(str::to_owned).collect();
        parts.dedup();
        parts
    }

    /// Where a setting was given: a file's name, or a variable's.
    pub(super) fn origin(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(|(_, origin)| origin.as_str())
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.given.get(name) {
            Some((Value::Text(text), _)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    pub(super) fn boolean(&self, name: &str) -> Option<bool> {
        match self.given.get(name) {
            Some((Value::Bool(yes), _)) => Some(*yes),
            _ => None,
        }
    }

    /// A number setting, its default where none is given. The schema has checked its range.
    pub(super) fn number<T: TryFrom<i64>>(&self, name: &str) -> T {
        let default = || schema::find(name).and_then(|setting| setting.default?.parse().ok());
        let number = match self.given.get(name) {
            Some((Value::Number(number), _)) => Some(*number),
            _ => default(),
        };
        number.and_then(|number| T::try_from(number).ok()).expect("the schema's ranges and defaults fit their settings")
    }

    pub(super) fn words(&self, name: &str) -> Option<&[String]> {
        match self.given.get(name) {
            Some((Value::Words(words), _)) => Some(words),
            _ => None,
        }
    }

    pub(super) fn secret(&self, name: &str) -> Option<&SecretString> {
        match self.given.get(name) {
            Some((Value::Secret(secret), _)) => Some(secret),
            _ => None,
        }
    }
}

/// A value of the file, if it is of the setting's kind.
fn file_value(setting: &Setting, value: &toml::Value) -> Option<Value> {
    match (setting.kind, value) {
        (Kind::Text | Kind::Path | Kind::Word(_), toml::Value::String(text)) => checked_text(setting.kind, text),
        (Kind::Bool, toml::Value::Boolean(yes)) => Some(Value::Bool(*yes)),
        (Kind::Number { min, max }, toml::Value::Integer(number)) => (min..=max).contains(number).then_some(Value::Number(*number)),
        (Kind::Command, toml::Value::Array(words)) => {
            let words: Option<Vec<String>> = words.iter().map(|word| word.as_str().map(str::to_owned)).collect();
            words.filter(|words| !words.is_empty()).map(Value::Words)
        }
        _ => None,
    }
}

/// A value of the environment, which is always text.
fn env_value(setting: &Setting, text: &str) -> Option<Value> {
    match setting.kind {
        Kind::Text | Kind::Path | Kind::Word(_) => checked_text(setting.kind, text),
        Kind::Bool => text.parse().ok().map(Value::Bool),
        Kind::Number { min, max } => text.parse().ok().filter(|number| (min..=max).contains(number)).map(Value::Number),
        Kind::Command => {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            (!words.is_empty()).then_some(Value::Words(words))
        }
        Kind::Secret => Some(Value::Secret(text.to_owned().into())),
    }
}

fn checked_text(kind: Kind, text: &str) -> Option<Value> {
    let fits = match kind {
        Kind::Path => text.starts_with('/'),
        Kind::Word(words) => words.contains(&text),
        _ => !text.is_empty(),
    };
    fits.then(|| Value::Text(text.to_owned()))
}

/// What a kind wants, for messages.
fn wanted(kind: Kind) -> String {
    match kind {
        Kind::Text | Kind::Secret => "text".to_owned(),
        Kind::Path => "an absolute path".to_owned(),
        Kind::Bool => "true or false".to_owned(),
        Kind::Number { min, max } => format!("a whole number from {min} to {max}"),
        Kind::Word(words) => words.join(" or "),
        Kind::Command => "a program and its arguments, as a list of texts".to_owned(),
    }
}

fn variable_suggestion(variable: &str) -> Option<String> {
    let rest = variable.strip_prefix("BYGONE_")?.to_lowercase();
    let mut parts = rest.splitn(3, '_');
    let name = match (parts.next()?, parts.next(), parts.next()) {
        (kind @ ("repo" | "cluster"), Some(which), Some(setting)) => format!("{kind}.{which}.{}", setting.replace('_', "-")),
        (kind, Some(setting), rest) => {
            format!("{kind}.{setting}{}", rest.map(|rest| format!("-{}", rest.replace('_', "-"))).unwrap_or_default())
        }
        _ => return None,
    };
    schema::suggestion(&name).map(|known| format!("BYGONE_{}", schema::env_form(&known)))
}
