//! The verbs that ask one registry: that it did not answer is no wrong usage.

use crate::Environment;
use crate::cli::{DeleteArguments, InspectArguments, LoginArguments, TagsArguments};
use crate::config::Registries;
use crate::exit::{self, Exit};
use crate::{credentials, remote, settings};

/// Runs `ferry inspect` as it was typed.
pub(crate) async fn inspect(
    typed: InspectArguments,
    registries: Registries,
    environment: Environment,
) -> anyhow::Result<Exit> {
    let settings = settings::Inspect::new(typed, &environment)?;
    let registry = settings.image.registry().cloned();
    let asked = crate::inspect::inspect(settings, registries, environment).await;
    exit::of_asking(asked, registry.as_ref())
}

/// Runs `ferry tags` as it was typed.
pub(crate) async fn tags(
    typed: TagsArguments,
    registries: Registries,
    environment: Environment,
) -> anyhow::Result<Exit> {
    let settings = settings::Tags::new(typed, &environment)?;
    let registry = settings.repository.registry().cloned();
    let asked = crate::tags::tags(settings, registries, environment).await;
    exit::of_asking(asked, registry.as_ref())
}

/// Runs `ferry delete` as it was typed.
pub(crate) async fn delete(
    typed: DeleteArguments,
    registries: Registries,
    environment: Environment,
) -> anyhow::Result<Exit> {
    let settings = settings::Delete::new(typed, &environment)?;
    let registry = settings.image.registry().cloned();
    let asked = crate::delete::delete(settings, registries, environment).await;
    exit::of_asking(asked, registry.as_ref())
}

/// Runs `ferry login` as it was typed.
pub(crate) async fn log_in(
    typed: LoginArguments,
    registries: &Registries,
    environment: &Environment,
) -> anyhow::Result<Exit> {
    let settings = settings::log_in(typed)?;
    let registry = settings.registry.clone();
    let asked = credentials::log_in(settings, remote::options(registries), environment).await;
    exit::of_asking(asked, Some(&registry))
}
