//! skopeo pulls through a mirror what a vanity registry points at, if that may be followed.

use ferry_testkit::peers;

use crate::mirror_clients::layout_holds;
use crate::vanity::{Vanity, refused};

/// What it said; `Err` if it failed.
async fn skopeo(name: &str, to: &str) -> Result<String, String> {
    let from = format!("docker://{name}");
    let arguments = ["copy", "--all", "--preserve-digests", "--src-tls-verify=false", &from, to];
    let output = peers::skopeo(arguments).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    if output.status.success() { Ok(said) } else { Err(said) }
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_pulls_what_it_points_at() {
    let mut vanity = Vanity::new().await;
    for store in ["cold", "warm"] {
        let layout = vanity.ferry.path(store);
        skopeo(&vanity.name(), &format!("oci:{}:x", layout.display())).await.unwrap();
        layout_holds(&layout, &vanity.image);
        vanity.check(store);
        vanity.end_upstream();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_is_told_that_it_points_inside() {
    let ferry = crate::harness::Ferry::new();
    let to = format!("oci:{}:x", ferry.path("layout").display());
    refused(async |name| skopeo(&name, &to).await.unwrap_err()).await;
}
