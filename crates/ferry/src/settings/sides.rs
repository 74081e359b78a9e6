use anyhow::bail;
use ferry_oci::Registry;
use ferry_registry::{Credential, Secret};

use crate::Environment;
use crate::credentials::OfSides;

/// The accounts that the environment names. Each belongs to one registry, so that nobody else gets to see it.
pub(super) fn of_sides<'a>(
    sources: impl IntoIterator<Item = &'a Registry>,
    targets: impl IntoIterator<Item = &'a Registry>,
    environment: &Environment,
) -> anyhow::Result<OfSides> {
    Ok(OfSides {
        source: of_side("FERRY_SOURCE", &each_once(sources), environment)?,
        target: of_side("FERRY_TARGET", &each_once(targets), environment)?,
    })
}

fn each_once<'a>(all: impl IntoIterator<Item = &'a Registry>) -> Vec<&'a Registry> {
    let mut registries: Vec<&Registry> = Vec::new();
    for registry in all {
        if !registries.contains(&registry) {
            registries.push(registry);
        }
    }
    registries
}

fn of_side(
    prefix: &str,
    registries: &[&Registry],
    environment: &Environment,
) -> anyhow::Result<Option<(Registry, Credential)>> {
    let (name, secret) = (format!("{prefix}_USERNAME"), format!("{prefix}_PASSWORD"));
    let (username, password) = match (environment.variable(&name), environment.variable(&secret)) {
        (None, None) => return Ok(None),
        (Some(username), Some(password)) => (username, password),
        (Some(_), None) => bail!("{name} is set and {secret} is not; set both or none"),
        (None, Some(_)) => bail!("{secret} is set and {name} is not; set both or none"),
    };
    match registries {
        [] => Ok(None),
        [one] => {
            let password = Secret::new(password.trim_end_matches(['\r', '\n']));
            Ok(Some(((*one).clone(), Credential::Password { username, password })))
        }
        [one, other, ..] => bail!(
            "{name} and {secret} are for one registry, and there are several: {one}, {other}; \
             log in to each (ferry login), or name accounts in the configuration"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_of_the_environment_belong_to_one_registry() {
        let environment = |variables: &[(&str, &str)]| -> Environment {
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let both = environment(&[("FERRY_TARGET_USERNAME", "me"), ("FERRY_TARGET_PASSWORD", "hunter2\n")]);
        let of_sides = |targets: &[&str], environment: &Environment| {
            let targets: Vec<Registry> = targets.iter().map(|target| target.parse().unwrap()).collect();
            super::of_sides(&["quay.io".parse().unwrap()], &targets, environment)
        };
        let one = ["x.example.com", "x.example.com"];
        let found = of_sides(&one, &both).unwrap();
        let (registry, credential) = found.target.unwrap();
        assert_eq!(registry.as_str(), "x.example.com");
        assert!(found.source.is_none());
        let password = Secret::new("hunter2");
        assert_eq!(credential, Credential::Password { username: "me".to_owned(), password });
        assert!(
            of_sides(&["x.example.com", "y.example.com"], &both).unwrap_err().to_string().contains("several")
        );
        assert!(of_sides(&[], &both).unwrap().target.is_none());
        let half = environment(&[("FERRY_SOURCE_USERNAME", "me")]);
        assert!(of_sides(&one, &half).unwrap_err().to_string().starts_with("FERRY_SOURCE_USERNAME is set"));
    }
}
