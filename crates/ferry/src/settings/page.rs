use std::sync::Arc;

use ferry_serve::{PageOptions, Trend};

use super::Mirror;
use crate::config::{Loaded, ShownTo};

/// What the page for people shows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page {
    pub(crate) enabled: bool,
    figures: bool,
}

impl Page {
    pub(crate) fn new(loaded: &Loaded) -> Self {
        let configured =
            loaded.config.serve.as_ref().and_then(|serve| serve.page.clone()).unwrap_or_default();
        Self {
            enabled: configured.enabled.unwrap_or(true),
            figures: configured.figures != Some(ShownTo::Hidden),
        }
    }

    /// The page, if there shall be one.
    pub(crate) fn of(
        self,
        mirror: Option<&Mirror>,
        figures: Arc<Trend>,
        login: bool,
    ) -> Option<ferry_serve::Page> {
        let options = PageOptions {
            addressing: mirror.map(|mirror| mirror.addressing.clone()),
            figures: mirror.filter(|_| self.figures).map(|_| figures),
            login,
        };
        self.enabled.then(|| ferry_serve::Page::new(options))
    }
}
