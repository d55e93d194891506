//! A caller's token: a JWT signed by HS256, whose `sub` is the caller's name.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The `authorization` of the caller `p-0001` and the like.
///
/// # Errors
/// None that a key of this kind can bring about.
pub fn authorization(nth: u32, key: &str) -> Result<String, hmac::digest::InvalidLength> {
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let header = encode(br#"{"alg":"HS256","typ":"JWT"}"#);
    let claims = encode(format!(r#"{{"sub":"p-{nth:04}"}}"#).as_bytes());
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes())?;
    mac.update(format!("{header}.{claims}").as_bytes());
    Ok(format!("Bearer {header}.{claims}.{}", encode(&mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_as_any_other_hs256() {
        let token = authorization(7, "secret").unwrap();
        let (signed, signature) = token.strip_prefix("Bearer ").unwrap().rsplit_once('.').unwrap();
        let claims = BASE64_URL_SAFE_NO_PAD.decode(signed.split('.').nth(1).unwrap()).unwrap();
        assert_eq!(claims, br#"{"sub":"p-0007"}"#);
        assert_eq!(signature, "YRZET9QET3rx-lDR2MAnJUzwjNowlNtJV0Q5AWJ77zU");
    }
}
