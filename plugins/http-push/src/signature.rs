//! Signatures of [Standard Webhooks 1.0](https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md).
//!
//! HMAC-SHA256 over `id.timestamp.body`. With several keys each signs, so that a service may know the old or the new one while a
//! key is replaced.

use base64::{
    Engine,
    alphabet::STANDARD as ALPHABET,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What a key that is shared begins with.
const PREFIX: &str = "whsec_";
/// How a signature with a shared key begins.
const VERSION: &str = "v1,";
/// Bytes of a key, at least and at most.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Keys at most: an old one and a new one, and some to spare.
const MAX_KEYS: usize = 8;

/// Base64 with or without its padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A key that is shared with the service. It shows itself to nobody.
pub struct SigningKey(Vec<u8>);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl SigningKey {
    /// Reads the keys between blanks in config `secret`.
    ///
    /// # Errors
    /// What is wrong with which one; it tells nothing of a key.
    pub fn read_all(text: &str) -> Result<Vec<Self>, String> {
        let keys: Vec<Self> = text
            .split_whitespace()
            .enumerate()
            .map(|(at, key)| Self::read(key).map_err(|wrong| format!("key {} in config `secret` {wrong}", at + 1)))
            .collect::<Result<_, _>>()?;
        match keys.len() {
            0 => Err("config `secret` is empty: write a key, or leave it out".to_owned()),
            1..=MAX_KEYS => Ok(keys),
            many => Err(format!("config `secret` has {many} keys; {MAX_KEYS} are the most")),
        }
    }

    fn read(text: &str) -> Result<Self, String> {
        let written = text.strip_prefix(PREFIX).ok_or_else(|| format!("does not begin with {PREFIX}"))?;
        let key = LENIENT.decode(written).map_err(|_| format!("is not base64 behind its {PREFIX}"))?;
        if KEY_BYTES.contains(&key.len()) {
            return Ok(Self(key));
        }
        let (least, most) = (KEY_BYTES.start(), KEY_BYTES.end());
        Err(format!(
            "stands for {} bytes; it must be {least} to {most}, such as {PREFIX}$(openssl rand -base64 32)",
            key.len()
        ))
    }

    fn sign(&self, id: &str, timestamp: &str, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length will do");
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        STANDARD.encode(mac.finalize().into_bytes())
    }
}

/// The headers of one attempt at `now_ms`: with a signature for each key, and without that header where there is none.
pub fn headers(keys: &[SigningKey], id: &str, now_ms: u64, body: &[u8]) -> Vec<(String, String)> {
    let timestamp = (now_ms / 1000).to_string();
    let signatures: Vec<String> =
        keys.iter().map(|key| format!("{VERSION}{}", key.sign(id, &timestamp, body))).collect();
    let mut headers = vec![("webhook-id".to_owned(), id.to_owned()), ("webhook-timestamp".to_owned(), timestamp)];
    if !signatures.is_empty() {
        headers.push(("webhook-signature".to_owned(), signatures.join(" ")));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the libraries of the specification are tested with, in all languages.
    const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const NOW_MS: u64 = 1_614_265_330_999;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
        headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn the_example_of_the_specification_is_signed_as_it_says() {
        let headers = headers(&SigningKey::read_all(KEY).unwrap(), ID, NOW_MS, BODY);
        assert_eq!(header(&headers, "webhook-id"), Some(ID));
        assert_eq!(header(&headers, "webhook-timestamp"), Some("1614265330"));
        assert_eq!(header(&headers, "webhook-signature"), Some(SIGNATURE));
    }

    #[test]
    fn each_of_several_keys_signs() {
        let other = format!("{PREFIX}{}", STANDARD.encode([7; 64]));
        let keys = SigningKey::read_all(&format!("  {other}\n{KEY} ")).unwrap();
        let headers = headers(&keys, ID, NOW_MS, BODY);
        let signatures: Vec<&str> = header(&headers, "webhook-signature").unwrap().split(' ').collect();
        assert_eq!(signatures.len(), 2);
        assert!(signatures[0].starts_with("v1,") && signatures[0] != SIGNATURE);
        assert_eq!(signatures[1], SIGNATURE);
    }

    #[test]
    fn all_that_is_signed_changes_the_signature() {
        let keys = SigningKey::read_all(KEY).unwrap();
        for (id, now_ms, body) in [("msg_q", NOW_MS, BODY), (ID, NOW_MS + 1000, BODY), (ID, NOW_MS, b"{}")] {
            let headers = headers(&keys, id, now_ms, body);
            assert_ne!(header(&headers, "webhook-signature"), Some(SIGNATURE));
        }
    }

    #[test]
    fn without_a_key_the_id_and_the_time_are_told_all_the_same() {
        let headers = headers(&[], ID, NOW_MS, BODY);
        assert_eq!(
            headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["webhook-id", "webhook-timestamp"]
        );
    }

    #[test]
    fn a_key_has_24_to_64_bytes_in_base64_with_or_without_padding() {
        let key = |bytes: usize| format!("{PREFIX}{}", STANDARD.encode(vec![1; bytes]));
        for bytes in [24, 25, 32, 64] {
            assert_eq!(SigningKey::read_all(&key(bytes)).unwrap()[0].0, vec![1; bytes]);
            assert_eq!(SigningKey::read_all(key(bytes).trim_end_matches('=')).unwrap()[0].0, vec![1; bytes]);
        }
        for (text, word) in [
            (key(23), "23 bytes"),
            (key(65), "65 bytes"),
            (PREFIX.to_owned(), "0 bytes"),
            (KEY[PREFIX.len()..].to_owned(), "does not begin with whsec_"),
            (format!("{PREFIX}hush hush"), "key 1 in config `secret`"),
            (format!("{KEY} {PREFIX}!"), "key 2 in config `secret` is not base64"),
            (" \n".to_owned(), "is empty"),
            ([KEY; 9].join(" "), "9 keys"),
        ] {
            let refused = SigningKey::read_all(&text).unwrap_err();
            assert!(refused.contains(word) && !refused.contains("hush"), "{text}: {refused}");
        }
        assert_eq!(SigningKey::read_all(&[KEY; 8].join(" ")).unwrap().len(), 8);
    }

    #[test]
    fn a_key_shows_itself_to_nobody() {
        assert_eq!(format!("{:?}", SigningKey::read_all(KEY).unwrap()), "[***]");
    }
}
