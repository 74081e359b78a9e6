//! Conditions that several statements have in common, about a row `r` of `links` or `manifests`.

/// That a manifest of the same repository names it.
///
/// What few repositories have is looked up among the manifests that name it; what many have, such as a base layer, among
/// the manifests of this repository: the other way round the work would grow with the square of the repositories. The
/// order of the joins is told, since SQLite has no statistics to choose by.
macro_rules! named {
    () => {
        "CASE WHEN (SELECT c.links + c.manifests FROM contents AS c WHERE c.digest = r.digest) < 50
         THEN EXISTS (SELECT 1 FROM edges AS e CROSS JOIN manifests AS p
                      WHERE e.digest = r.digest AND p.scope = r.scope AND p.name = r.name AND p.digest = e.manifest)
         ELSE EXISTS (SELECT 1 FROM manifests AS p CROSS JOIN edges AS e
                      WHERE p.scope = r.scope AND p.name = r.name AND e.manifest = p.digest AND e.digest = r.digest)
         END"
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

/// That the manifest is pinned, by its digest or by a tag on it.
macro_rules! pinned {
    () => {
        "EXISTS (SELECT 1 FROM pins AS n WHERE n.scope = r.scope AND n.name = r.name
                 AND (n.reference = r.digest
                      OR EXISTS (SELECT 1 FROM tags AS t WHERE t.scope = r.scope AND t.name = r.name
                                 AND t.tag = n.reference AND t.digest = r.digest)))"
    };
}
