//! Values with a meaning of their own: where a secret is, who a registry is, and the like. They are read strictly, and what
//! is wrong with one is said without repeating it.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use bytesize::ByteSize;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// In a variable of the environment.
    Env(String),
    /// In a file, without the end of its last line.
    File(PathBuf),
    /// What a program prints, without the end of its last line. Run without a shell.
    Command(Vec<String>),
}

/// What to write for a secret.
const SOURCE: &str = "{env: NAME}, {file: PATH} or {command: [PROGRAM, ...]}";

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Sources)
    }
}

struct Sources;

impl<'de> Visitor<'de> for Sources {
    type Value = Source;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SOURCE)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Source, A::Error> {
        let bad = || de::Error::custom(format!("a secret is in one of {SOURCE}"));
        let key: String = map.next_key()?.ok_or_else(bad)?;
        let source = match key.as_str() {
            "env" => Source::Env(map.next_value()?),
            "file" => Source::File(map.next_value()?),
            "command" => Source::Command(map.next_value()?),
            _ => return Err(bad()),
        };
        let given = match &source {
            Source::Env(name) => !name.is_empty(),
            Source::File(path) => !path.as_os_str().is_empty(),
            Source::Command(words) => words.first().is_some_and(|program| !program.is_empty()),
        };
        let only: Option<String> = map.next_key()?;
        if given && only.is_none() { Ok(source) } else { Err(bad()) }
    }

    // What was written may be the secret itself: serde's own messages would repeat it.
    fn visit_str<E: de::Error>(self, _: &str) -> Result<Source, E> {
        Err(E::custom(format!("a secret is not written here; say where it is: {SOURCE}")))
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Source, E> {
        self.visit_str("")
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Source, E> {
        self.visit_str("")
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Source, E> {
        self.visit_str("")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Source, A::Error> {
        self.visit_str("")
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        match self {
            Self::Env(name) => map.serialize_entry("env", name)?,
            Self::File(path) => map.serialize_entry("file", path)?,
            Self::Command(words) => map.serialize_entry("command", words)?,
        }
        map.end()
    }
}

impl JsonSchema for Source {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Where a secret is",
            "type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": false,
            "properties": {
                "env": {"type": "string", "description": "The variable of the environment that holds it"},
                "file": {"type": "string", "description": "The file that holds it, without the end of its last line"},
                "command": {
                    "type": "array", "items": {"type": "string"}, "minItems": 1,
                    "description": "The program that prints it, with its arguments; run without a shell"
                }
            }
        })
    }
}

/// A proxy: `none`, its URL, or where its URL is when that holds a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Proxy {
    None,
    Url(String),
    From(Source),
}

impl<'de> Deserialize<'de> for Proxy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Proxy;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "none, the URL of a proxy, or {SOURCE}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Proxy, E> {
                if text == "none" {
                    return Ok(Proxy::None);
                }
                let url: ferry_registry::ProxyUrl = text.parse().map_err(|e: ferry_store::Error| {
                    E::custom(format!("the address of a proxy {}", e.detail()))
                })?;
                if text.contains('@') {
                    return Err(E::custom(format!(
                        "the proxy {url} has a password; say where its URL is: {SOURCE}"
                    )));
                }
                Ok(Proxy::Url(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Proxy, A::Error> {
                Sources.visit_map(map).map(Proxy::From)
            }
        }
        deserializer.deserialize_any(Read)
    }
}

impl Serialize for Proxy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_str("none"),
            Self::Url(url) => serializer.serialize_str(url),
            Self::From(source) => source.serialize(serializer),
        }
    }
}

impl JsonSchema for Proxy {
    fn schema_name() -> Cow<'static, str> {
        "Proxy".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let source = generator.subschema_for::<Source>();
        json_schema!({
            "description": "none, http://HOST:PORT, https://, socks5:// or socks5h://; where the URL is, if it has a password",
            "anyOf": [{"type": "string"}, source]
        })
    }
}

/// What is written must say something: a name with nothing behind it looks as if it did. `{}` says that all is usual.
///
/// # Errors
/// If nothing is written.
pub(crate) fn something<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let written: Option<T> = Option::deserialize(deserializer)?;
    let nothing =
        || de::Error::custom("nothing is written here; write {} if all shall be usual, or leave it out");
    written.ok_or_else(nothing).map(Some)
}

/// A text that is parsed as `T` where it is written, so that what is wrong is named with its place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Parsed<T> {
    pub(crate) text: String,
    pub(crate) value: T,
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let value = text.parse().map_err(de::Error::custom)?;
        Ok(Self { text, value })
    }
}

impl<T> Serialize for Parsed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<T> JsonSchema for Parsed<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string"})
    }
}

/// What to write for a size.
const SIZE: &str = "write a number and a unit, as in 500kB, 2MiB or 10GB";

/// A number of bytes as it is written: `500MB`, `200GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(u64);

impl Size {
    pub(crate) fn as_u64(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Who leaves the unit out means gigabytes rather than bytes.
        let with_unit = Some(text).filter(|text| !text.ends_with(|c: char| c.is_ascii_digit() || c == '.'));
        let size = with_unit.and_then(|text| text.parse::<ByteSize>().ok());
        size.map(|size| Self(size.as_u64())).ok_or(SIZE)
    }
}

/// One text or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OneOrMore<T>(pub(crate) Vec<T>);

impl<T> Default for OneOrMore<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMore<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Read<T> {
            type Value = OneOrMore<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one text or a list of them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMore<T>, E> {
                Ok(OneOrMore(vec![T::deserialize(de::value::StrDeserializer::new(text))?]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMore<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Ok(OneOrMore(items))
            }
        }
        deserializer.deserialize_any(Read(std::marker::PhantomData))
    }
}

impl<T: Serialize> Serialize for OneOrMore<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMore<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "OneOrMore".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({"anyOf": [one, {"type": "array", "items": one}]})
    }
}
