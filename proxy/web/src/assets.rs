//! The embedded files of the bundled client, precompressed, under names that contain their hash.

/// For every asset: its name changes with its content, so a copy never goes stale.
pub const CACHE_CONTROL: &str = "public, max-age=31536000, immutable";

/// One embedded file.
#[derive(Debug, Clone, Copy)]
pub struct Asset {
    /// Whole request path, e.g. `/assets/page-3F2A6B7C.css`.
    pub path: &'static str,
    pub content_type: &'static str,
    /// Uncompressed form; absent for large files, which every browser takes compressed.
    pub identity: Option<&'static [u8]>,
    pub gzip: &'static [u8],
    pub brotli: &'static [u8],
}

/// How the bytes of an answer are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Identity,
    Gzip,
    Brotli,
}

impl Encoding {
    /// Value of `Content-Encoding`; none for identity.
    #[must_use]
    pub fn header(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Brotli => Some("br"),
        }
    }
}

impl Asset {
    /// The best form that an `Accept-Encoding` header takes; `None` means 406. The answer needs
    /// `Vary: Accept-Encoding`.
    ///
    /// [RFC 9110 §12.5.3] A coding with `q=0` is refused, `*` stands for codings not named.
    #[must_use]
    pub fn negotiate(&self, accept_encoding: Option<&str>) -> Option<(Encoding, &'static [u8])> {
        let header = accept_encoding.unwrap_or("");
        if accepts(header, "br").unwrap_or(false) {
            return Some((Encoding::Brotli, self.brotli));
        }
        if accepts(header, "gzip").unwrap_or(false) {
            return Some((Encoding::Gzip, self.gzip));
        }
        match self.identity {
            Some(bytes) if accepts(header, "identity").unwrap_or(true) => {
                Some((Encoding::Identity, bytes))
            }
            _ => None,
        }
    }
}

/// Whether the header takes `coding`; `None` when it says nothing of it. A name of its own wins over `*`.
fn accepts(header: &str, coding: &str) -> Option<bool> {
    let mut star = None;
    for item in header.split(',') {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().unwrap_or("");
        let taken = parts
            .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
            .is_none_or(|quality| quality.parse::<f32>().is_ok_and(|quality| quality > 0.0));
        if name.eq_ignore_ascii_case(coding) {
            return Some(taken);
        }
        if name == "*" {
            star = Some(taken);
        }
    }
    star
}

/// The asset at a request path such as `/assets/page-3F2A6B7C.css`.
#[must_use]
pub fn asset(path: &str) -> Option<&'static Asset> {
    let index = ASSETS.binary_search_by(|asset| asset.path.cmp(path)).ok()?;
    ASSETS.get(index)
}

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_asset_is_found_by_its_path_and_nothing_else_is() {
        for listed in ASSETS {
            assert_eq!(asset(listed.path).expect("listed").path, listed.path);
        }
        for path in [
            "",
            "/",
            "/assets/",
            "/assets/page.css",
            "/assets/../assets.rs",
            "/assets/nothing-00000000.js",
        ] {
            assert!(asset(path).is_none(), "{path}");
        }
    }

    #[test]
    fn the_wasm_is_a_file_of_its_own_and_no_script_contains_it() {
        let wasm: Vec<&Asset> = ASSETS
            .iter()
            .filter(|asset| asset.content_type == "application/wasm")
            .collect();
        assert_eq!(wasm.len(), 1);
        assert!(
            wasm[0].brotli.len() > 500_000,
            "{} bytes",
            wasm[0].brotli.len()
        );
        for script in ASSETS
            .iter()
            .filter(|asset| asset.content_type.starts_with("text/javascript"))
        {
            assert!(
                script.gzip.len() < 200_000,
                "{} is {} bytes",
                script.path,
                script.gzip.len()
            );
        }
    }

    #[test]
    fn names_carry_a_content_hash() {
        for listed in ASSETS {
            let stem = listed.path.rsplit_once('.').expect("extension").0;
            let hash = stem.rsplit_once('-').expect("hash").1;
            assert!(
                hash.len() == 8 && hash.bytes().all(|byte| byte.is_ascii_alphanumeric()),
                "{}",
                listed.path
            );
        }
    }

    #[test]
    fn encoding_follows_the_request() {
        let small = Asset {
            path: "",
            content_type: "",
            identity: Some(b"i"),
            gzip: b"g",
            brotli: b"b",
        };
        let large = Asset {
            identity: None,
            ..small
        };
        let cases: [(Option<&str>, Option<Encoding>, Option<Encoding>); 9] = [
            (
                Some("gzip, deflate, br, zstd"),
                Some(Encoding::Brotli),
                Some(Encoding::Brotli),
            ),
            (Some("gzip"), Some(Encoding::Gzip), Some(Encoding::Gzip)),
            (
                Some("br;q=0, gzip;q=0.5"),
                Some(Encoding::Gzip),
                Some(Encoding::Gzip),
            ),
            (Some("*"), Some(Encoding::Brotli), Some(Encoding::Brotli)),
            (
                Some("br;q=0, *"),
                Some(Encoding::Gzip),
                Some(Encoding::Gzip),
            ),
            (Some("deflate"), Some(Encoding::Identity), None),
            (Some("identity;q=0"), None, None),
            (Some("*;q=0"), None, None),
            (None, Some(Encoding::Identity), None),
        ];
        for (header, of_small, of_large) in cases {
            assert_eq!(
                small.negotiate(header).map(|(encoding, _)| encoding),
                of_small,
                "{header:?}"
            );
            assert_eq!(
                large.negotiate(header).map(|(encoding, _)| encoding),
                of_large,
                "{header:?}"
            );
        }
    }
}
