use ferry_oci::Name;
use ferry_store::Scope;
use serde_json::json;
use sqlx::{SqliteConnection, query_scalar};

/// A repository as the catalog names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(super) scope: String,
    pub(super) name: String,
}

impl Key {
    pub(crate) fn new(scope: &Scope, name: &Name) -> Self {
        Self { scope: scope_text(scope), name: name.to_string() }
    }

    /// The repository of another name in the same scope.
    pub(crate) fn sibling(&self, name: &Name) -> Self {
        Self { scope: self.scope.clone(), name: name.to_string() }
    }

    /// The scope and name again.
    pub(crate) fn parse(&self) -> sqlx::Result<(Scope, Name)> {
        let bad = || sqlx::Error::Decode(format!("{} is no scope", self.scope).into());
        let parts: Vec<Option<String>> = serde_json::from_str(&self.scope).map_err(|_| bad())?;
        let scope = match <[_; 3]>::try_from(parts) {
            Ok([Some(kind), Some(host), account]) if kind == "upstream" => Scope::Upstream { host, account },
            Err(parts) if parts == [Some("hosted".to_owned())] => Scope::Hosted,
            _ => return Err(bad()),
        };
        Ok((scope, super::decoded(&self.name)?))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether a statement finds a row for scope, name and a third text.
    pub(super) async fn has(
        &self,
        conn: &mut SqliteConnection,
        sql: &'static str,
        third: String,
    ) -> sqlx::Result<bool> {
        let asked = query_scalar(sql).bind(&self.scope).bind(&self.name).bind(third);
        let row: Option<i64> = asked.fetch_optional(conn).await?;
        Ok(row.is_some())
    }
}

/// A scope as text. JSON, because hosts and accounts may hold any character and two scopes must never meet.
pub(super) fn scope_text(scope: &Scope) -> String {
    match scope {
        Scope::Hosted => json!(["hosted"]),
        Scope::Upstream { host, account } => json!(["upstream", host, account]),
    }
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_never_meet() {
        let upstream = |host: &str, account: Option<&str>| {
            scope_text(&Scope::Upstream { host: host.to_owned(), account: account.map(str::to_owned) })
        };
        let texts = [
            scope_text(&Scope::Hosted),
            upstream("a", None),
            upstream("a", Some("")),
            upstream("a", Some("null")),
            upstream("a\",\"b", None),
            upstream("a", Some("b")),
            upstream("", Some("a")),
        ];
        let different: std::collections::HashSet<_> = texts.iter().collect();
        assert_eq!(different.len(), texts.len(), "{texts:?}");
        for text in &texts {
            let key = Key { scope: text.clone(), name: "a/b".to_owned() };
            let (scope, name) = key.parse().unwrap();
            assert_eq!(Key::new(&scope, &name), key, "and back");
        }
        assert_eq!(upstream("a", None), r#"["upstream","a",null]"#, "what is on disk stays readable");
    }
}
