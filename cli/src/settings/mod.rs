//! The configuration in layers: defaults, then the file, the environment, `--set`, and flags. Each later layer beats
//! the ones before it, and every value remembers where it came from, so that a complaint can say so.

mod check;
mod keys;
#[cfg(test)]
mod tests;

pub(crate) use check::{cluster_keys, host_port};
pub(crate) use keys::print;

use keys::Key;
use proto_core::node::config::Config;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use toml::Value;
use toml::de::{DeTable, DeValue};

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Nowhere: it is the default.
    Default,
    /// In a file, at a line that counts from 1.
    File(String, usize),
    /// In an environment variable.
    Variable(String),
    /// By `--set`.
    Set,
    /// By a flag of its own, such as `--roles`.
    Flag(&'static str),
}

/// Something wrong or doubtful in the configuration: where it was said, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    source: Source,
    key: String,
    shown: String,
    text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { source, key, shown, text } = self;
        match source {
            Source::Default => write!(f, "{key} = {shown} (the default): {text}"),
            Source::File(path, line) if key.is_empty() => write!(f, "{path}:{line}: {text}"),
            Source::File(path, line) if shown.is_empty() => write!(f, "{path}:{line}: {key}: {text}"),
            Source::File(path, line) => write!(f, "{path}:{line}: {key} = {shown}: {text}"),
            Source::Variable(name) if shown.is_empty() => write!(f, "environment {name}: {key} {text}"),
            Source::Variable(name) => write!(f, "environment {name}={shown}: {key} {text}"),
            Source::Set if key.is_empty() => write!(f, "--set {shown}: {text}"),
            Source::Set if shown.is_empty() => write!(f, "--set {key}: {text}"),
            Source::Set => write!(f, "--set {key}={shown}: {text}"),
            Source::Flag(flag) => write!(f, "{flag} {shown}: {key} {text}"),
        }
    }
}

/// A configuration that a node can start with.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// The configuration.
    pub(crate) config: Config,
    /// What should be looked at but stops nothing.
    pub(crate) warnings: Vec<Problem>,
}

/// Keys whose values are not shown: secrets, and rules, which are long and told by their number.
const HIDDEN: [&str; 7] = [
    "cluster.key",
    "cluster.keys_accepted",
    "manager.password",
    "auth.rules",
    "auth.users",
    "auth.keys",
    "auth.secret",
];

/// Every key that is a port which this node opens.
const PORTS: [&str; 9] = [
    "http.port",
    "https.port",
    "rtmp.port",
    "rtmps.port",
    "rtsp.port",
    "rtsps.port",
    "rtsp.udp_port",
    "webrtc.port",
    "cluster.port",
];

/// What a reader of TOML says of a list of tables, where that is more than the key and holds nothing of a value.
fn detail<'a>(key: &str, message: &'a str) -> Option<&'a str> {
    let names_a_field =
        ["unknown field", "missing field", "unknown variant"].iter().any(|p| message.starts_with(p));
    let line = message.lines().next().unwrap_or_default();
    (key.starts_with("auth.") && names_a_field).then_some(line)
}

/// Takes the layers in order and finds out what is wrong with them.
pub(crate) struct Loader {
    keys: Vec<Key>,
    defaults: toml::Table,
    table: toml::Table,
    given: BTreeMap<String, (Source, String)>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

enum Entered<'a> {
    /// In TOML, which knows types.
    Typed(Value),
    /// On the command line or in the environment, where all is text.
    Text(&'a str),
}

impl Loader {
    /// A loader that has the defaults so far.
    ///
    /// # Errors
    /// A problem if the defaults cannot be read, which the tests rule out.
    pub(crate) fn new() -> Result<Loader, Vec<Problem>> {
        let defaults = toml::Table::try_from(Config::default()).map_err(|e| vec![broken(&e.to_string())])?;
        Ok(Loader {
            keys: keys::all(),
            table: defaults.clone(),
            defaults,
            given: BTreeMap::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
        })
    }

    /// Takes the values of a TOML file.
    pub(crate) fn file(&mut self, path: &Path) {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => self.file_text(&name, &text),
            Err(e) => self.problems.push(Problem {
                source: Source::Flag("--config"),
                key: "the file".to_owned(),
                shown: name,
                text: format!("cannot be read: {e}"),
            }),
        }
    }

    fn file_text(&mut self, name: &str, text: &str) {
        let line_at = |offset: usize| 1 + text.bytes().take(offset).filter(|b| *b == b'\n').count();
        let at = |offset| Source::File(name.to_owned(), line_at(offset));
        // The first reading tells the lines, the second the values.
        let (lines, values) = match (DeTable::parse(text), text.parse::<toml::Table>()) {
            (Ok(lines), Ok(values)) => (lines, values),
            (Err(e), _) | (_, Err(e)) => {
                let offset = e.span().map_or(0, |s| s.start);
                let text = format!("this is no TOML: {}", e.message());
                self.problems.push(Problem {
                    source: at(offset),
                    key: String::new(),
                    shown: String::new(),
                    text,
                });
                return;
            }
        };
        let mut entries = Vec::new();
        for (name, value) in lines.get_ref() {
            let key = name.get_ref().to_string();
            match value.get_ref() {
                DeValue::Table(section) if self.is_section(&key) => {
                    for inner in section.keys() {
                        let value = values.get(&key).and_then(|s| s.get(inner.get_ref().as_ref()));
                        entries.push((inner.span().start, format!("{key}.{}", inner.get_ref()), value));
                    }
                }
                _ => entries.push((name.span().start, key.clone(), values.get(&key))),
            }
        }
        // Complaints come in the order of the lines, not of the names.
        entries.sort_by_key(|(offset, ..)| *offset);
        for (offset, key, value) in entries {
            if let Some(value) = value {
                let shown = if value.is_table() { String::new() } else { value.to_string() };
                self.put(&key, Entered::Typed(value.clone()), shown, at(offset));
            }
        }
    }

    /// Takes the environment variables that begin with `HEADWATER_`; the others are none of our business.
    pub(crate) fn environment(&mut self, variables: impl Iterator<Item = (OsString, OsString)>) {
        let by_variable: BTreeMap<String, String> =
            self.keys.iter().map(|k| (keys::variable(&k.name), k.name.clone())).collect();
        let ours = variables.filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|n| n.starts_with(keys::VARIABLE_PREFIX))?;
            if name == crate::ctl::TOKEN_VARIABLE {
                return None;
            }
            Some((name, value.to_string_lossy().into_owned()))
        });
        // Sorted, because an environment has no order and complaints should.
        for (name, value) in ours.collect::<BTreeMap<_, _>>() {
            match by_variable.get(&name) {
                Some(key) => self.put(key, Entered::Text(&value), value.clone(), Source::Variable(name)),
                // No error: container platforms set variables such as HEADWATER_SERVICE_HOST for a service's name.
                None => {
                    let meant = by_variable.keys().map(|v| (strsim::damerau_levenshtein(&name, v), v)).min();
                    let hint = match meant {
                        Some((far, variable)) if far <= 3 => format!("; did you mean {variable}?"),
                        _ => String::new(),
                    };
                    self.warnings.push(Problem {
                        source: Source::Variable(name),
                        key: "the variable".to_owned(),
                        shown: String::new(),
                        text: format!("belongs to no key and was left out{hint}"),
                    });
                }
            }
        }
    }

    /// Takes one `KEY=VALUE` of `--set`.
    pub(crate) fn set(&mut self, pair: &str) {
        match pair.split_once('=') {
            Some((key, value)) => {
                self.put(key.trim(), Entered::Text(value.trim()), value.trim().to_owned(), Source::Set);
            }
            None => self.problems.push(Problem {
                source: Source::Set,
                key: String::new(),
                shown: pair.to_owned(),
                text: "must be KEY=VALUE, such as --set http.port=6080".to_owned(),
            }),
        }
    }

    /// Takes the value of a flag that stands for a key.
    pub(crate) fn flag(&mut self, flag: &'static str, key: &str, value: &str) {
        self.put(key, Entered::Text(value), value.to_owned(), Source::Flag(flag));
    }

    /// Makes each port, whoever gave it, so much higher. Comes last.
    pub(crate) fn offset_ports(&mut self, by: u16) {
        for key in PORTS {
            let Some((section, name)) = key.split_once('.') else { continue };
            let port = self.table.get_mut(section).and_then(|s| s.get_mut(name));
            let Some(Value::Integer(port)) = port else { continue };
            let higher = *port + i64::from(by);
            if by == 0 || *port == 0 {
                continue;
            }
            if higher > u16::MAX.into() {
                self.problems.push(Problem {
                    source: Source::Flag("--port-offset"),
                    key: key.to_owned(),
                    shown: by.to_string(),
                    text: format!("is {port}, and {higher} is no port: there are 65535"),
                });
            } else {
                *port = higher;
            }
        }
    }

    fn is_section(&self, key: &str) -> bool {
        self.defaults.get(key).is_some_and(Value::is_table)
    }

    fn put(&mut self, key: &str, value: Entered<'_>, shown: String, source: Source) {
        let shown = match key {
            _ if HIDDEN.contains(&key) => "…".to_owned(),
            // URLs hold passwords.
            "sources" | "destinations" => String::new(),
            _ => shown,
        };
        match self.try_put(key, value) {
            Ok(()) => _ = self.given.insert(key.to_owned(), (source, shown)),
            Err(text) => self.problems.push(Problem { source, key: key.to_owned(), shown, text }),
        }
    }

    fn try_put(&mut self, key: &str, value: Entered<'_>) -> Result<(), String> {
        let (Some(known), Some(default)) =
            (self.keys.iter().find(|k| k.name == key), keys::get(&self.defaults, key))
        else {
            if self.is_section(key) {
                return Err(format!(
                    "{key} is a section; its keys are written below [{key}] in a file, as {key}.… elsewhere"
                ));
            }
            let hint =
                keys::nearest(key, &self.keys).map(|k| format!("; did you mean {k}?")).unwrap_or_default();
            return Err(format!("there is no such key{hint} (`headwater config` prints all)"));
        };
        let allowed = format!("must be {}; the default is {default}", known.allowed);
        let value = match value {
            Entered::Typed(value) => value,
            Entered::Text(text) => from_text(text, default).ok_or_else(|| allowed.clone())?,
        };
        if !value.same_type(default) {
            return Err(format!("{allowed} (this is a TOML {})", value.type_str()));
        }
        let mut changed = self.table.clone();
        match key.split_once('.') {
            Some((section, name)) => {
                let section = changed.get_mut(section).and_then(Value::as_table_mut);
                section.map(|s| s.insert(name.to_owned(), value));
            }
            None => _ = changed.insert(key.to_owned(), value),
        }
        // Read as a whole each time: only so is a value that does not fit tied to its own key.
        changed.clone().try_into::<Config>().map_err(|e| {
            match detail(key, e.message()).map(str::to_owned).or_else(|| table_fault(key, &e)) {
                Some(why) => format!("{allowed}; {why}"),
                None => allowed,
            }
        })?;
        self.table = changed;
        Ok(())
    }

    /// The configuration that the layers make together.
    ///
    /// # Errors
    /// All problems that were found, in the order of the layers.
    pub(crate) fn finish(mut self) -> Result<Loaded, Vec<Problem>> {
        let config: Config = match self.table.clone().try_into() {
            Ok(config) => config,
            Err(e) => return Err(vec![broken(&e.to_string())]),
        };
        // Rules between keys make sense only once each key is right by itself.
        if self.problems.is_empty() {
            for finding in check::check(&config) {
                let (source, shown) = self.given.get(&finding.key).cloned().unwrap_or_else(|| {
                    let value = keys::get(&self.table, &finding.key).map(ToString::to_string);
                    (Source::Default, value.unwrap_or_default())
                });
                let problem = Problem { source, key: finding.key, shown, text: finding.text };
                if finding.harmless {
                    self.warnings.push(problem);
                } else {
                    self.problems.push(problem);
                }
            }
        }
        if self.problems.is_empty() {
            Ok(Loaded { config, warnings: self.warnings })
        } else {
            Err(self.problems)
        }
    }
}

/// What is wrong with one of a list of tables, where that can be said without a value, which may be secret.
fn table_fault(key: &str, error: &toml::de::Error) -> Option<String> {
    let text = error.message();
    let harmless = ["missing field", "unknown field", "unknown variant"].iter().any(|w| text.starts_with(w));
    (matches!(key, "sources" | "destinations") && harmless).then(|| text.to_owned())
}

/// A value of the default's type out of a text.
fn from_text(text: &str, default: &Value) -> Option<Value> {
    match default {
        Value::String(_) => Some(Value::String(text.to_owned())),
        Value::Integer(_) => text.replace('_', "").parse().ok().map(Value::Integer),
        Value::Boolean(_) => text.parse().ok().map(Value::Boolean),
        Value::Array(_) if text.starts_with('[') => text.parse::<Value>().ok(),
        Value::Array(_) => {
            let items = text.split(',').map(str::trim).filter(|t| !t.is_empty());
            Some(Value::Array(items.map(|t| Value::String(t.to_owned())).collect()))
        }
        _ => None,
    }
}

fn broken(text: &str) -> Problem {
    Problem {
        source: Source::Default,
        key: "the configuration".to_owned(),
        shown: String::new(),
        text: format!("cannot be read back: {text}; this is a defect of headwater"),
    }
}

/// What would keep a node with this configuration from starting, in words.
pub(crate) fn faults(config: &Config) -> Vec<String> {
    let found = check::check(config).into_iter().filter(|f| !f.harmless);
    found.map(|f| format!("{}: {}", f.key, f.text)).collect()
}
