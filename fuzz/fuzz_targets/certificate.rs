//! Certificates are read from any text: a refusal is short, and repeats no secret; those that the registry writes are
//! read as they are; what is accepted is accepted with the same keys when it is written out anew.
#![no_main]

use libfuzzer_sys::fuzz_target;
use registry_fuzz::edit;
use registry_zmtp::keys::certificate::{Certificate, public_text, secret_text};
use registry_zmtp::keys::key::{KeyPair, PublicKey, SecretKey};

fuzz_target!(|input: &[u8]| {
    let Some((choice, rest)) = input.split_first() else { return };
    let keys = KeyPair::from(SecretKey::from_bytes(&[*choice; 32]));
    let written_out = match choice % 3 {
        0 => String::new(),
        1 => public_text(&keys, "camera 7"),
        _ => secret_text(&keys, "camera 7").to_string(),
    };
    let mut text = written_out.clone().into_bytes();
    if choice % 3 == 0 {
        text.extend(rest)
    } else {
        edit(&mut text, rest)
    }
    let text = String::from_utf8_lossy(&text);
    if !written_out.is_empty() && text == written_out {
        let read = Certificate::parse(&text).expect("what the registry writes can be read");
        assert_eq!((&read.public, read.get("name")), (keys.public(), Some("camera 7")));
        let secret = read.secret.as_ref().map(SecretKey::as_bytes);
        assert_eq!(secret, (choice % 3 == 2).then_some(keys.secret().as_bytes()));
    }
    let all = match Certificate::parse_all(&text) {
        Ok(all) => all,
        Err(error) => {
            let error = error.to_string();
            assert!(error.len() < 120 && !error.contains(keys.secret().to_z85().as_str()), "{error}");
            return assert!(Certificate::parse(&text).is_err());
        }
    };
    assert!(!all.is_empty());
    assert_eq!(Certificate::parse(&text).is_ok(), all.len() == 1);
    for certificate in &all {
        let Certificate { public, secret, metadata } = certificate;
        assert_eq!(public.to_string().parse::<PublicKey>().as_ref(), Ok(public));
        if let Some(secret) = secret {
            let again: SecretKey = secret.to_z85().parse().expect("a key is a key again");
            assert_eq!(again.as_bytes(), secret.as_bytes());
        }
        for (name, value) in metadata {
            assert!(text.contains(name.as_str()) && text.contains(value.as_str()));
            assert!(certificate.get(name).is_some());
        }
    }
    let again: String = all.iter().map(written).collect();
    let again = Certificate::parse_all(&again).expect("what was read can be written");
    let keys = |all: &[Certificate]| -> Vec<_> {
        all.iter().map(|one| (one.public, one.secret.as_ref().map(|secret| *secret.as_bytes()))).collect()
    };
    assert_eq!(keys(&again), keys(&all));
});

fn written(certificate: &Certificate) -> String {
    let secret = certificate.secret.as_ref().map(|secret| format!("    secret-key = \"{}\"\n", *secret.to_z85()));
    format!("curve\n    public-key = \"{}\"\n{}", certificate.public, secret.unwrap_or_default())
}
