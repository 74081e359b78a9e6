//! The texts of the page.

use ferry_policy::address::{Form, Unmirrored};
use ferry_policy::clients::Language;
use serde_json::{Map, Value};

/// Declares texts: their name in templates, in English, in Chinese.
macro_rules! words {
    ($($word:ident $key:literal $english:literal $chinese:literal)*) => {
        /// A text of the page.
        #[derive(Debug, Clone, Copy)]
        pub(super) enum Word { $($word),* }

        const ALL: &[(Word, &str)] = &[$((Word::$word, $key)),*];

        /// A text in a language.
        pub(super) fn one(word: Word, language: Language) -> &'static str {
            match (word, language) {
                $((Word::$word, Language::English) => $english, (Word::$word, Language::Chinese) => $chinese,)*
            }
        }
    };
}

words! {
    Title "title" "Container images" "容器镜像"
    Skip "skip" "Skip to the content" "跳到正文"
    Settings "settings" "Settings" "设置"
    Theme "theme" "Light or dark" "浅色或深色"
    Copy "copy" "Copy" "复制"
    Copied "copied" "Copied" "已复制"
    Heading "heading" "A mirror for container images" "容器镜像站"
    Lead "lead" "Pull images of public registries from here. What was pulled once is kept and comes from here the next time, even while its registry is down."
        "从这里拉取各镜像仓库的镜像。拉取过一次的镜像会保存在这里，下次直接从这里提供，即使原来的镜像仓库无法访问。"
    ImageLabel "image_label" "Which image do you want?" "需要哪个镜像？"
    Show "show" "Show names" "显示名称"
    Examples "examples" "For example" "例如"
    Names "names" "Names of" "名称："
    Commands "commands" "Commands" "命令"
    Clients "clients" "Configure clients" "配置客户端"
    ClientsLead "clients_lead" "Once a client is configured, images keep their own names. If the mirror cannot help, the client asks the registry itself."
        "客户端配置好以后，镜像名称不用改。镜像站帮不上忙时，客户端会直接请求原来的镜像仓库。"
    Registries "registries" "What is mirrored" "镜像了哪些仓库"
    RegistriesLead "registries_lead" "Nothing else can be pulled through this mirror." "其他镜像仓库不能通过这里拉取。"
    Registry "registry" "Registry" "镜像仓库"
    ByPrefix "by_prefix" "Its images here" "在这里的名称"
    ByHost "by_host" "Or at its own host" "或在专用主机"
    Figures "figures" "How it is doing" "运行情况"
    HitRatio "hit_ratio" "Served from cache" "缓存命中率"
    FromCache "from_cache" "from cache" "来自缓存"
    Served "served" "Sent to clients" "发给客户端"
    Requests "requests" "Requests" "请求"
    Fetched "fetched" "Fetched" "从上游取得"
    Stale "stale" "Served stale" "以旧内容答复"
    Storage "storage" "Kept" "已保存"
    Of "of" "of" "上限"
    Free "free" "Free" "剩余"
    Objects "objects" "Objects" "对象"
    Uptime "uptime" "Running for" "已运行"
    Bytes "bytes" "Traffic" "流量"
    ToClients "to_clients" "to clients" "发给客户端"
    FromUpstreams "from_upstreams" "from registries" "从上游取得"
    HourAgo "hour_ago" "1 h ago" "1 小时前"
    Now "now" "now" "现在"
    Soon "soon" "The plot begins in a few seconds." "几秒钟后开始绘图。"
    Live "live" "Being fetched now" "正在取得"
    NoTransfers "no_transfers" "Nothing at the moment." "目前没有。"
    AndMore "and_more" "And more:" "还有："
    Readers "readers" "Clients" "客户端"
    Health "health" "Registries" "上游"
    State "state" "State" "状态"
    StateUnknown "state_unknown" "not asked yet" "尚未请求"
    StateGood "state_good" "well" "正常"
    StateFailing "state_failing" "failing for" "故障已持续"
    Quota "quota" "Quota left" "剩余配额"
    RegistryHeading "registry_heading" "A registry for container images" "容器镜像仓库"
    RegistryLead "registry_lead" "Anything that speaks the OCI distribution API can push images here and pull them."
        "任何支持 OCI 分发 API 的工具都可以在这里推送和拉取镜像。"
    RegistryUse "registry_use" "Push and pull" "推送和拉取"
    RegistryPush "registry_push" "Push" "推送"
    RegistryPull "registry_pull" "Pull" "拉取"
    RegistryCopy "registry_copy" "Copy from another registry" "从其他镜像仓库复制"
    RegistryHttp "registry_http" "This address is plain HTTP. Docker takes it with, in /etc/docker/daemon.json:"
        "这个地址是明文 HTTP。Docker 需要在 /etc/docker/daemon.json 中写："
    Login "login" "Log in first:" "请先登录："
    Footer "footer" "moves container images to where people can pull them" "把容器镜像送到大家能拉取的地方"
    NoImage "no_image" "This is not the name of an image:" "这不是镜像的名称："
    Nowhere "nowhere" "This mirror does not have it:" "这个镜像站没有它："
    PrefixTitle "prefix_title" "With the mirror in front" "把镜像站写在前面"
    PrefixNeeds "prefix_needs" "Works everywhere, and nothing has to be configured." "到处可用，无需配置。"
    PrefixHttp "prefix_http" "Docker, crictl and Kubernetes need to know that this address is plain HTTP; see below."
        "Docker、crictl 和 Kubernetes 需要知道这个地址是明文 HTTP，见下文。"
    AliasTitle "alias_title" "At a host of its registry" "用镜像仓库的专用主机"
    AliasNeeds "alias_needs" "The same, shorter. The host needs a DNS record." "同上，更短。这个主机需要 DNS 记录。"
    NamespaceTitle "namespace_title" "By its own name, through containerd" "用原来的名称，通过 containerd"
    NamespaceNeeds "namespace_needs" "For containerd, Kubernetes, k3s and nerdctl once they are configured." "适用于配置好的 containerd、Kubernetes、k3s 和 nerdctl。"
    TransparentTitle "transparent_title" "By its own name, through Docker" "用原来的名称，通过 Docker"
    TransparentNeeds "transparent_needs" "For Docker once it is configured; only for images of Docker Hub." "适用于配置好的 Docker，仅限 Docker Hub 的镜像。"
    ReasonUnknown "reason_unknown" "This registry is not mirrored:" "没有镜像这个仓库："
    ReasonNoDomain "reason_no_domain" "The mirror has no name here that an image name can begin with." "镜像站在这里没有可以写在镜像名称前面的主机名。"
    ReasonNoHost "reason_no_host" "No host of this mirror stands for" "这个镜像站没有代表它的主机："
    ReasonTaken "reason_taken" "Asked for in this way, the mirror takes it for something else." "这样请求时，镜像站会理解成别的镜像。"
    ReasonNoTool "reason_no_tool" "Docker asks mirrors only for images of Docker Hub." "Docker 只向镜像站请求 Docker Hub 的镜像。"
}

/// All texts under their names.
pub(super) fn all(language: Language) -> Value {
    let text = |(word, key): &(Word, &str)| ((*key).to_owned(), one(*word, language).into());
    ALL.iter().map(text).collect::<Map<_, _>>().into()
}

/// What a way is called, and what it takes.
pub(super) fn of_form(form: Form, language: Language) -> [&'static str; 2] {
    let words = match form {
        Form::Prefix => [Word::PrefixTitle, Word::PrefixNeeds],
        Form::AliasHost => [Word::AliasTitle, Word::AliasNeeds],
        Form::Namespace => [Word::NamespaceTitle, Word::NamespaceNeeds],
        Form::Transparent => [Word::TransparentTitle, Word::TransparentNeeds],
    };
    words.map(|word| one(word, language))
}

/// Why an image has no name.
pub(super) fn reason(error: &Unmirrored, language: Language) -> String {
    let said = |word| one(word, language);
    match error {
        Unmirrored::Unknown(unknown) => format!("{} {}", said(Word::ReasonUnknown), unknown.asked),
        Unmirrored::NoDomain => said(Word::ReasonNoDomain).to_owned(),
        Unmirrored::NoHost(registry) => format!("{} {registry}", said(Word::ReasonNoHost)),
        Unmirrored::Taken(_) => said(Word::ReasonTaken).to_owned(),
        Unmirrored::Malformed(malformed) => malformed.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What templates ask for.
    fn asked(template: &str) -> Vec<&str> {
        let end = |rest: &str| rest.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(rest.len());
        let asked = template.split_inclusive(" t.").skip(1);
        asked.map(|rest| &rest[..end(rest)]).filter(|key| !key.is_empty()).collect()
    }

    #[test]
    fn every_text_of_the_templates_is_there_in_both_languages() {
        let templates = [include_str!("../../assets/page.html"), include_str!("../../assets/figures.html")];
        let [english, chinese] = [Language::English, Language::Chinese].map(all);
        let asked: Vec<&str> = templates.iter().flat_map(|template| asked(template)).collect();
        assert!(asked.len() > 30, "{asked:?}");
        for key in asked {
            assert!(english[key].is_string() && chinese[key].is_string(), "{key}");
        }
        for (word, key) in ALL {
            assert_ne!(english[key], chinese[key], "{word:?}");
        }
    }
}
