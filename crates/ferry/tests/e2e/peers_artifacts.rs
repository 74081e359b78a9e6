//! What belongs to an image between registries that nobody here wrote: Debian's docker-registry, which has no API for
//! referrers.

use ferry_oci::{Manifest, fallback_tag};
use ferry_testkit::peers::{self, DockerRegistry};

use crate::artifacts::{NAME, artifact, copy, cosign, image, push, referrers, signature};

/// The manifest under a tag, as skopeo sees it.
async fn inspect(host: &str, tag: &impl std::fmt::Display) -> Manifest {
    let reference = format!("docker://{host}/{NAME}:{tag}");
    let output = peers::skopeo(["inspect", "--raw", "--tls-verify=false", &reference]).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Manifest::parse(None, output.stdout.into()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_go_from_docker_registry_to_docker_registry() {
    let (source, target) = (DockerRegistry::start().await.unwrap(), DockerRegistry::start().await.unwrap());
    let (from, to) = (source.addr().to_string(), target.addr().to_string());
    let (image, signed) = (image(), signature());
    let (of_root, of_platform) = (artifact(&image.root, "a"), artifact(&image.manifests[0], "b"));
    push(&from, &image, Some(&"v1".parse().unwrap())).await;
    push(&from, &of_root, None).await;
    push(&from, &of_platform, None).await;
    push(&from, &signed, Some(&cosign(&image.root))).await;
    let own = artifact(&image.root, "the target's own");
    push(&to, &own, None).await;
    assert_eq!(copy(&from, &to).await.unwrap().referrers, 3);
    assert_eq!(referrers(&to, &image.root).await, [own.root.digest(), of_root.root.digest()]);
    assert_eq!(referrers(&to, &image.manifests[0]).await, [of_platform.root.digest()]);
    assert_eq!(inspect(&to, &cosign(&image.root)).await.digest(), signed.root.digest());
    let list = inspect(&to, &fallback_tag(&image.root.digest())).await;
    assert_eq!(list.children().len(), 2, "the target's own list has grown and was not replaced");
    assert_eq!(copy(&from, &to).await, None);
}
