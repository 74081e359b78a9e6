use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::bail;
use ferry_oci::ImageReference;

use super::aim::Aim;
use super::list::read_list;
use super::platforms::Choice;
use crate::cli::RewriteArguments;
use crate::endpoint::Endpoint;

/// What `ferry rewrite` shall do.
#[derive(Debug)]
pub(crate) struct Rewrite {
    /// What is read; `-` is standard input.
    pub(crate) files: Vec<PathBuf>,
    /// Only list the images.
    pub(crate) list: bool,
    aim: Option<Aim>,
    /// Names that a list gives, by the image that they are for.
    named: HashMap<ImageReference, ImageReference>,
    platform: Option<String>,
}

impl Rewrite {
    pub(crate) fn new(typed: RewriteArguments) -> anyhow::Result<Self> {
        let aim = Aim::new(typed.to.as_deref(), typed.naming.as_deref())?;
        if aim.is_none() && typed.from_file.is_none() && !typed.list {
            bail!("say where the images are now: --to PREFIX, as for ferry copy, or --from-file LIST");
        }
        if aim.as_ref().is_some_and(|aim| aim.registry().is_none()) {
            bail!("--to: a registry is needed, nobody pulls from a layout or an archive");
        }
        let files = if typed.files.is_empty() { vec!["-".into()] } else { typed.files };
        let platform = Choice { name: typed.platform.map(|pattern| pattern.to_string()), ..Choice::ALL };
        let mut named = HashMap::new();
        for wish in typed.from_file.as_deref().map(read_list).transpose()?.unwrap_or_default() {
            let pair = wish.pair(aim.as_ref(), &platform)?;
            if let (Endpoint::Registry(source), Endpoint::Registry(target)) = (pair.source, pair.target) {
                named.insert(tagged(source), target);
            }
        }
        Ok(Self { files, list: typed.list, aim, named, platform: platform.name })
    }

    /// The name of an image at the target; `None` if it stays. A digest stays with it, because the bytes do.
    ///
    /// # Errors
    /// That its name would not be one there.
    pub(crate) fn renamed(&self, image: &ImageReference) -> anyhow::Result<Option<ImageReference>> {
        let target = match (self.named.get(&tagged(image.clone())), &self.aim) {
            (Some(target), _) => target.clone(),
            (None, Some(aim)) if aim.holds(image) => return Ok(None),
            (None, Some(aim)) => {
                match aim.target(&Endpoint::Registry(image.clone()), None, self.platform.as_deref())? {
                    Endpoint::Registry(target) => target,
                    Endpoint::Layout(_) => return Ok(None),
                }
            }
            (None, None) => return Ok(None),
        };
        Ok(Some(ImageReference { digest: image.digest, ..target }))
    }
}

/// The image with the tag that it means.
pub(crate) fn tagged(image: ImageReference) -> ImageReference {
    let tag = match (&image.tag, image.digest) {
        (None, None) => Some(ferry_oci::Tag::latest()),
        _ => image.tag.clone(),
    };
    ImageReference { tag, ..image }
}
