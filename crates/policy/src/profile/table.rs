//! The facts, with their sources. What only hearsay knows does not stand here, above all not what would refuse a name:
//! who is refused wrongly can only say `--profile generic`.

use ferry_oci::media_type::{OCI_INDEX, OCI_MANIFEST};

use super::{Depth, Profile};

const MIB: u64 = 1024 * 1024;

/// A registry of which nothing is known but the specification; the others say what they add.
pub(super) static GENERIC: Profile = BASE;

const BASE: Profile = Profile {
    name: "generic",
    title: "this registry",
    depth: Depth::ANY,
    before_push: None,
    refuses: &[],
    max_manifest: None,
    requests_per_second: None,
    tested: false,
    hosts: &[],
};

/// The first whose host fits decides.
pub(super) static PROFILES: [Profile; 17] = [
    Profile {
        name: "docker-hub",
        title: "Docker Hub",
        // Docker Hub API reference: /v2/namespaces/{namespace}/repositories/{repository}
        depth: Depth::TWO,
        hosts: &["docker.io"],
        ..BASE
    },
    Profile {
        name: "aliyun-personal",
        title: "Aliyun ACR, personal edition",
        // goharbor/harbor src/pkg/reg/adapter/aliacr/openapi.go: repositories are asked for by namespace and name
        depth: Depth::TWO,
        before_push: Some("create the namespace in the console of Aliyun ACR"),
        // goharbor/harbor src/pkg/reg/adapter/aliacr/adapter.go
        requests_per_second: Some(15),
        hosts: &["registry.*.aliyuncs.com", "registry-vpc.*.aliyuncs.com"],
        ..BASE
    },
    Profile {
        name: "aliyun-enterprise",
        title: "Aliyun ACR, enterprise edition",
        // goharbor/harbor src/pkg/reg/adapter/aliacr/adapter.go
        requests_per_second: Some(15),
        hosts: &["*-registry.*.cr.aliyuncs.com", "*-registry-vpc.*.cr.aliyuncs.com"],
        ..BASE
    },
    Profile {
        name: "tencent-ccr",
        title: "Tencent CCR",
        // goharbor/harbor src/pkg/reg/adapter/tencentcr; tencentcloud.com doc 1051/39862
        depth: Depth::TWO,
        hosts: &["ccr.ccs.tencentyun.com"],
        ..BASE
    },
    Profile {
        name: "tencent-tcr",
        title: "Tencent TCR",
        // goharbor/harbor src/pkg/reg/adapter/tencentcr: CreateNamespace and CreateRepository before each push
        before_push: Some("create namespace and repository in the console of Tencent TCR"),
        // goharbor/harbor src/pkg/reg/adapter/tencentcr
        requests_per_second: Some(10),
        hosts: &["*.tencentcloudcr.com"],
        ..BASE
    },
    Profile {
        name: "huawei-swr",
        title: "Huawei SWR, shared edition",
        // goharbor/harbor src/pkg/reg/adapter/huawei/huawei_adapter.go
        before_push: Some("create the organisation in the console of Huawei SWR"),
        // support.huaweicloud.com swr_01_0011: OCI images are answered with 400 "Invalid image, fail to parse
        // 'manifest.json'"
        refuses: &[OCI_INDEX, OCI_MANIFEST],
        // support.huaweicloud.com swr_01_0011 and swr_03_0007: about 20 pushes a second, then 503
        requests_per_second: Some(20),
        hosts: &["swr.*.myhuaweicloud.com"],
        ..BASE
    },
    Profile { name: "ghcr", title: "GitHub Packages", hosts: &["ghcr.io"], ..BASE },
    Profile {
        name: "ecr",
        title: "Amazon ECR",
        // AWS API reference, CreateRepositoryCreationTemplate, appliedFor
        before_push: Some(
            "create the repository in Amazon ECR, or a repository creation template applied for CREATE_ON_PUSH",
        ),
        // goharbor/harbor src/pkg/reg/adapter/awsecr/auth.go
        hosts: &[
            "*.dkr.ecr.*.amazonaws.com",
            "*.dkr.ecr-fips.*.amazonaws.com",
            "*.dkr.ecr.*.amazonaws.com.cn",
            "*.dkr-ecr.*.on.aws",
            "*.dkr-ecr-fips.*.on.aws",
        ],
        ..BASE
    },
    Profile { name: "ecr-public", title: "Amazon ECR Public", hosts: &["public.ecr.aws"], ..BASE },
    Profile {
        name: "azure",
        title: "Azure Container Registry",
        // learn.microsoft.com container-registry-skus
        max_manifest: Some(4 * MIB),
        hosts: &["*.azurecr.io", "*.azurecr.cn", "*.azurecr.us"],
        ..BASE
    },
    Profile {
        name: "artifact-registry",
        title: "Google Artifact Registry",
        // Artifact Registry documentation, quotas: 18,000 writes a minute for a project and region
        requests_per_second: Some(300),
        hosts: &["*.pkg.dev", "gcr.io", "*.gcr.io"],
        ..BASE
    },
    Profile {
        name: "quay",
        title: "Quay",
        // docs.redhat.com, Quay configuration reference, FEATURE_RATE_LIMITS
        requests_per_second: Some(30),
        hosts: &["quay.io"],
        ..BASE
    },
    Profile {
        name: "gitlab",
        title: "GitLab",
        before_push: Some("create the project in GitLab"),
        hosts: &["registry.gitlab.com"],
        ..BASE
    },
    Profile {
        name: "harbor",
        title: "Harbor",
        // goharbor/harbor src/server/middleware/v2auth: names are PROJECT[/…]/REPOSITORY
        depth: Depth::BELOW_NAMESPACE,
        before_push: Some("create the project in Harbor"),
        // goharbor/harbor src/common/const.go
        max_manifest: Some(4 * MIB),
        ..BASE
    },
    Profile { name: "nexus", title: "Nexus", ..BASE },
    Profile { name: "artifactory", title: "Artifactory", ..BASE },
    Profile {
        name: "distribution",
        title: "distribution",
        // distribution/distribution registry/handlers/manifests.go
        max_manifest: Some(4 * MIB),
        tested: true,
        ..BASE
    },
];
