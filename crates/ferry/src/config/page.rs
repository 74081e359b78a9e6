//! What can be written about the page for people.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The page that browsers show at /: how to use this registry, and of a mirror how it is doing.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PageConfig {
    /// Whether there is such a page: true by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) enabled: Option<bool>,
    /// Who sees how a mirror is doing: public by default, which is whoever reaches the page. Names of repositories are never
    /// shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) figures: Option<ShownTo>,
}

/// Who sees something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ShownTo {
    /// Whoever reaches the page.
    Public,
    /// Nobody.
    Hidden,
}
