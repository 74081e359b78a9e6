//! Conditions that several statements have in common, about a row `r` of `links` or `manifests`.

/// That a manifest of the same repository names it. The order of the join is told, since without statistics SQLite may
/// begin with all manifests of the repository.
macro_rules! named {
    () => {
        "EXISTS (SELECT 1 FROM edges AS e CROSS JOIN manifests AS p
                 WHERE e.digest = r.digest AND p.scope = r.scope AND p.name = r.name AND p.digest = e.manifest)"
    };
}

/// That its content was not used after the cut-off.
macro_rules! rested {
    ($cutoff:literal) => {
        concat!("EXISTS (SELECT 1 FROM contents AS c WHERE c.digest = r.digest AND c.used <= ", $cutoff, ")")
    };
}

/// That a tag points at the manifest.
macro_rules! tagged {
    () => {
        "EXISTS (SELECT 1 FROM tags AS t WHERE t.scope = r.scope AND t.name = r.name AND t.digest = r.digest)"
    };
}

/// That the subject of the manifest is there.
macro_rules! attached {
    () => {
        "EXISTS (SELECT 1 FROM manifests AS s
                 WHERE s.scope = r.scope AND s.name = r.name AND s.digest = r.subject)"
    };
}
