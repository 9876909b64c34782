//! The tables `[certificates."SUBJECT"]`: what the subjects of client certificates grant.
//!
//! **Invariant**: each subject has a role. Only the role `ingest` has sources or `revise`.

use std::collections::{BTreeMap, BTreeSet};

use toml::de::{DeTable, DeValue};

use super::settings::{REVISE, ROLE, SOURCES_ALLOWED, SettingScope, setting_names};
use super::{CERTIFICATES, FileParser, text};
use crate::access::tokens::check_grants;
use crate::access::{Grants, Role};
use crate::config::value::ValueError;
use crate::domain::{Source, truncate_for_display};

impl FileParser<'_> {
    /// Parses every `[certificates."SUBJECT"]`.
    pub(super) fn parse_certificates(&mut self, table: &DeTable<'_>) -> BTreeMap<String, Grants> {
        let mut found = BTreeMap::new();
        for (key, value) in table {
            let subject = key.get_ref().as_ref();
            let path = format!("{CERTIFICATES}.\"{}\"", truncate_for_display(subject));
            if !subject.contains('=') {
                let problem = "it is not a subject; write the line of 'openssl x509 -noout -subject -nameopt RFC2253' \
                               without 'subject=', like \"CN=feeder,O=Example\"";
                self.refuse(key.span().start, format!("{path}: {problem}"));
                continue;
            }
            let Some(table) = self.expect_table(&path, value) else { continue };
            if let Some(grants) = self.parse_grants(&path, key.span().start, table) {
                found.insert(subject.to_owned(), grants);
            }
        }
        found
    }

    fn parse_grants(&mut self, parent: &str, at: usize, table: &DeTable<'_>) -> Option<Grants> {
        let (mut role, mut sources, mut revise) = (None, None, None);
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let path = format!("{parent}.{name}");
            match name {
                ROLE => role = self.parse_value(&path, value, parse_role),
                SOURCES_ALLOWED => sources = self.parse_value(&path, value, parse_sources),
                REVISE => revise = self.parse_value(&path, value, |v| v.as_bool().ok_or(ValueError::Switch)),
                other => {
                    let allowed = setting_names(|scope| scope == SettingScope::Certificate);
                    self.refuse_key(&format!("{parent}."), other, key.span(), &format!("the settings are {allowed}"));
                }
            }
        }
        let Some(role) = role else {
            if !table.iter().any(|(key, _)| key.get_ref() == ROLE) {
                self.refuse(at, format!("{parent}: it has no role; add role = \"read\", \"ingest\" or \"admin\""));
            }
            return None;
        };
        let grants = Grants {
            role: role.value,
            sources: sources.map(|sources| sources.value),
            revise: revise.is_some_and(|revise| revise.value),
        };
        match check_grants(&grants) {
            Ok(()) => Some(grants),
            Err(problem) => {
                self.refuse(at, format!("{parent}: {problem}"));
                None
            }
        }
    }
}

fn parse_role(value: &DeValue<'_>) -> Result<Role, ValueError> {
    Role::parse(text(value)?)
        .ok_or_else(|| ValueError::Domain("it is not a role; write read, ingest or admin".to_owned()))
}

fn parse_sources(value: &DeValue<'_>) -> Result<BTreeSet<Source>, ValueError> {
    let not_list = || ValueError::Domain("it is not a list of sources; write one like [\"timesca\"]".to_owned());
    let source = |name: &str| Source::parse(name).map_err(|problem| ValueError::Domain(problem.to_string()));
    let names = value.as_array().ok_or_else(not_list)?;
    names.iter().map(|name| source(text(name.get_ref())?)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::FileSettings;
    use super::*;

    #[test]
    fn subject_has_role_sources_and_revise() {
        let text = "[certificates.\"CN=feeder,O=Bank\"]\nrole = \"ingest\"\nsources = [\"nbkr\"]\nrevise = true\n\
                    [certificates.\"CN=root\"]\nrole = \"admin\"\n";
        let found = FileSettings::parse(text).unwrap().certificates;
        let sources = Some([Source::parse("nbkr").unwrap()].into());
        assert_eq!(found["CN=feeder,O=Bank"], Grants { role: Role::Ingest, sources, revise: true });
        assert_eq!(found["CN=root"], Grants { role: Role::Admin, sources: None, revise: false });
    }

    #[test]
    fn invalid_table_is_refused_with_its_remedy() {
        let check = |text: &str, part: &str| {
            let problems = FileSettings::parse(text).map(|_| ()).expect_err(text);
            assert!(problems.iter().any(|problem| problem.text.contains(part)), "{text}: {problems:?}");
        };
        check("[certificates.feeder]\nrole = \"read\"", "it is not a subject");
        check("[certificates.\"CN=a\"]\n", "it has no role");
        check("[certificates.\"CN=a\"]\nrole = \"owner\"", "write read, ingest or admin");
        check(
            "[certificates.\"CN=a\"]\nrole = \"read\"\nrevise = true",
            "the role 'read' has no sources and no revise",
        );
        check("[certificates.\"CN=a\"]\nrole = \"ingest\"\nsources = \"nbkr\"", "it is not a list of sources");
        check("[certificates.\"CN=a\"]\nrole = \"ingest\"\nsources = []", "the list of sources is empty");
        check(
            "[certificates.\"CN=a\"]\nname = \"b\"",
            "certificates.\"CN=a\".name: unknown setting; the settings are role, sources and revise",
        );
    }
}
