//! The layers of the configuration, each over the one before: defaults, one TOML file, variables, flags.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use super::{
    ConfigError,
    keys::{self, KEYS, Key, Named, VARIABLE_PREFIX},
};

/// The variable that names the file.
pub const FILE_VARIABLE: &str = "SERVICERADAR_CONFIG";

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody gave one.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// A variable of the environment.
    Variable(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Variable(name) => f.write_str(name),
            Origin::Flag(name) => f.write_str(name),
        }
    }
}

/// A value as text, and where it came from.
#[derive(Clone, Debug)]
pub struct Value {
    /// Lists are separated by commas.
    pub text: String,
    /// Where it came from.
    pub origin: Origin,
}

/// A value for every key.
#[derive(Debug)]
pub struct Layers(BTreeMap<&'static str, Value>);

impl Layers {
    /// The defaults alone.
    pub fn defaults() -> Self {
        let value = |text| Value { text, origin: Origin::Default };
        let default = |key: &'static Key| (key.name, value(key.default.to_owned()));
        let mut layers: BTreeMap<_, _> = KEYS.iter().map(default).collect();
        // The one default that depends on who asks, and where.
        if let Some(dir) = crate::folders::data() {
            layers.insert("dir", value(dir.display().to_string()));
        }
        Self(layers)
    }

    /// Puts a TOML document over it.
    pub fn file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let broken = |why: String| ConfigError::File { path: path.to_owned(), why };
        let document: toml::Table =
            text.parse().map_err(|error: toml::de::Error| broken(error.to_string()))?;
        let mut flat = Vec::new();
        flatten("", &document, &mut flat).map_err(broken)?;
        let origin = Origin::File(path.to_owned());
        for (name, text) in flat {
            let named = keys::named(&name, str::to_owned)
                .map_err(|nearest| ConfigError::unknown(name, &origin, nearest))?;
            if let Named::Value(key) = named
                && key.secret
            {
                return Err(ConfigError::SecretInFile {
                    key: key.name,
                    variable: keys::variable(key.name),
                    path: path.to_owned(),
                });
            }
            // A file is found from where it is named.
            let beside = path.parent().unwrap_or(Path::new(""));
            self.put(named, text, origin.clone(), beside)?;
        }
        Ok(())
    }

    /// Puts variables over it; those of other programs are passed by.
    pub fn variables(
        &mut self,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        for (name, text) in variables {
            if !name.starts_with(VARIABLE_PREFIX) || name == FILE_VARIABLE {
                continue;
            }
            let origin = Origin::Variable(name.clone());
            let named = keys::named(&name, keys::variable)
                .map_err(|nearest| ConfigError::unknown(name, &origin, nearest))?;
            self.put(named, text, origin, Path::new(""))?;
        }
        Ok(())
    }

    /// Puts a flag over it.
    pub fn flag(&mut self, flag: &str, name: &str, text: String) -> Result<(), ConfigError> {
        let origin = Origin::Flag(flag.to_owned());
        let named = keys::named(name, str::to_owned)
            .map_err(|nearest| ConfigError::unknown(name.to_owned(), &origin, nearest))?;
        self.put(named, text, origin, Path::new(""))
    }

    fn put(&mut self, named: Named, text: String, origin: Origin, beside: &Path) -> Result<(), ConfigError> {
        let (key, text) = match named {
            Named::Value(key) => (key, text),
            Named::File(key) => {
                let path = beside.join(&text);
                let read = std::fs::read_to_string(&path);
                let secret = read.map_err(|error| ConfigError::Secret { key: key.name, path, error })?;
                (key, secret.trim().to_owned())
            }
        };
        self.0.insert(key.name, Value { text, origin });
        Ok(())
    }

    /// The value of a key, by its name.
    pub fn get(&self, name: &'static str) -> Result<&Value, ConfigError> {
        self.0.get(name).ok_or_else(|| ConfigError::unknown(name.to_owned(), &Origin::Default, None))
    }
}

/// `[armis] page_size = 5` becomes `armis.page_size` and `5`.
fn flatten(prefix: &str, table: &toml::Table, into: &mut Vec<(String, String)>) -> Result<(), String> {
    for (name, value) in table {
        let name = format!("{prefix}{name}");
        match value {
            toml::Value::Table(inner) => flatten(&format!("{name}."), inner, into)?,
            toml::Value::Array(items) => {
                let texts: Result<Vec<String>, String> =
                    items.iter().map(|item| scalar(&name, item)).collect();
                into.push((name, texts?.join(",")));
            }
            value => into.push((name.clone(), scalar(&name, value)?)),
        }
    }
    Ok(())
}

fn scalar(name: &str, value: &toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Boolean(truth) => Ok(truth.to_string()),
        other => Err(format!("{name} is a {}: give a text, a whole number, true or false", other.type_str())),
    }
}
