//! The subject of a certificate as text, and the end of its validity.
//!
//! **Invariant**: two different subjects have different texts. The text is that of RFC 4514, which
//! `openssl x509 -noout -subject -nameopt RFC2253` prints for ASCII names.

use std::fmt::Write as _;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use rustls::ServerConnection;
use x509_parser::prelude::{AttributeTypeAndValue, FromDer as _, X509Certificate, X509Name};

/// The short names of attribute types, by object identifier.
const ATTRIBUTES: [(&str, &str); 10] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "street"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// Returns the subject of the verified client certificate; `None` if the client sent none.
pub fn peer_subject(connection: &ServerConnection) -> Option<Arc<str>> {
    let certificate = connection.peer_certificates()?.first()?;
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(text(certificate.subject()).into())
}

/// Returns the end of the validity of a certificate, in seconds since 1970; `None` if it cannot be parsed.
pub(super) fn not_after_s(certificate: &[u8]) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// Formats a name: the last part first, parts separated by commas.
fn text(name: &X509Name<'_>) -> String {
    let part = |attributes: Vec<String>| attributes.join("+");
    let mut parts: Vec<String> = name.iter_rdn().map(|rdn| part(rdn.iter().map(attribute).collect())).collect();
    parts.reverse();
    parts.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let identifier = attribute.attr_type().to_id_string();
    let short = ATTRIBUTES.iter().find(|(other, _)| *other == identifier).map(|(_, name)| *name);
    match (short, attribute.as_str()) {
        (Some(name), Ok(value)) => format!("{name}={}", escape(value)),
        // The value of another type, or in another encoding, has the hexadecimal form.
        (name, _) => {
            let name = name.unwrap_or(&identifier);
            format!("{name}=#{}", HEXLOWER.encode(attribute.as_slice()))
        }
    }
}

/// Escapes a value, so that it ends where the attribute ends.
fn escape(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    value.chars().enumerate().fold(String::new(), |mut text, (at, c)| {
        let is_edge = (at == 0 && matches!(c, ' ' | '#')) || (at == last && c == ' ');
        if c.is_control() {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                let _ = write!(text, "\\{byte:02X}");
            }
            return text;
        }
        if is_edge || matches!(c, '"' | '+' | ',' | ';' | '<' | '>' | '\\') {
            text.push('\\');
        }
        text.push(c);
        text
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    #[test]
    fn subject_is_written_as_in_rfc_4514() {
        let check = |attributes: &[(DnType, &str)], expect: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            for (kind, value) in attributes {
                params.distinguished_name.push(kind.clone(), *value);
            }
            let key = KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            let (_, parsed) = X509Certificate::from_der(certificate.der()).unwrap();
            assert_eq!(text(parsed.subject()), expect);
        };
        check(&[(DnType::CommonName, "feeder")], "CN=feeder");
        let organization =
            [(DnType::CountryName, "KG"), (DnType::OrganizationName, "Bank"), (DnType::CommonName, "feeder")];
        check(&organization, "CN=feeder,O=Bank,C=KG");
        // A comma in a name does not look like the end of the name.
        check(&[(DnType::CommonName, "a,O=Bank")], "CN=a\\,O=Bank");
        check(&[(DnType::CommonName, " #a ")], "CN=\\ #a\\ ");
        check(&[(DnType::CommonName, "#a+b\n")], "CN=\\#a\\+b\\0A");
        check(&[(DnType::CustomDnType(vec![1, 2, 3]), "x")], "1.2.3=#78");
        check(&[], "");
    }
}
