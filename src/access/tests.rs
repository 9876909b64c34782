//! Tests of the decisions about clients and calls.

use super::tokens::{Secret, TokenRecord, encode};
use super::*;
use crate::clock::ManualClock;
use crate::domain::Timestamp;

const NOW: Timestamp = Timestamp::from_micros(1_765_195_200_000_000);

fn grants(role: Role) -> Grants {
    Grants { role, sources: None, revise: false }
}

fn access(settings: AccessSettings) -> Access {
    Access::new(settings, Arc::new(ManualClock::new(NOW)), AccessMetrics::default())
}

fn source(name: &str) -> Source {
    Source::parse(name).unwrap()
}

#[test]
fn header_is_bearer_token_or_malformed() {
    let check = |value: Option<&str>, expect: Option<&str>| {
        let found = match Presented::from_header(value.map(str::as_bytes)) {
            Presented::Nothing => None,
            Presented::Malformed => Some("malformed".to_owned()),
            Presented::Secret(secret) => Some(format!("secret {secret}")),
        };
        assert_eq!(found.as_deref(), expect, "{value:?}");
    };
    check(None, None);
    check(Some("Bearer abc"), Some("secret abc"));
    check(Some("bearer  abc "), Some("secret abc"));
    check(Some("Basic abc"), Some("malformed"));
    check(Some("Bearer"), Some("malformed"));
    check(Some(""), Some("malformed"));
}

#[test]
fn role_of_client_decides_which_calls_it_may_make() {
    let subjects = Role::ALL.map(|role| (format!("CN={role}"), grants(role)));
    let access = access(AccessSettings { certificates: subjects.into(), ..AccessSettings::default() });
    let needs = [Need::Nothing, Need::Role(Role::Read), Need::Role(Role::Ingest), Need::Role(Role::Admin)];
    let check = |subject: Option<&str>, expect: [Option<&str>; 4]| {
        let peer = Peer { subject: subject.map(Arc::from), ..Peer::default() };
        let found = needs
            .map(|need| access.authorize(Some(need), &peer, Presented::Nothing).err().map(|refusal| refusal.reason()));
        assert_eq!(found, expect, "{subject:?}");
    };
    let (missing, role, unknown) = (Some("missing"), Some("role"), Some("unknown_subject"));
    check(None, [None, missing, missing, missing]);
    check(Some("CN=read"), [None, None, role, role]);
    check(Some("CN=ingest"), [None, None, None, role]);
    check(Some("CN=admin"), [None, None, None, None]);
    check(Some("CN=other"), [None, unknown, unknown, unknown]);
    let refusal = access.authorize(None, &Peer::default(), Presented::Nothing).unwrap_err();
    assert_eq!(refusal, Refusal::Unlisted);
}

#[test]
fn server_without_settings_is_open_and_public_read_opens_only_reads() {
    let may = |settings: AccessSettings, role: Role| {
        access(settings).authorize(Some(Need::Role(role)), &Peer::default(), Presented::Nothing).is_ok()
    };
    assert_eq!(Role::ALL.map(|role| may(AccessSettings::default(), role)), [true; 3]);
    let public = || AccessSettings { public_read: true, ..AccessSettings::default() };
    assert_eq!(Role::ALL.map(|role| may(public(), role)), [true, false, false]);
    assert_eq!(
        access(AccessSettings::default()).authorize(None, &Peer::default(), Presented::Nothing).unwrap_err(),
        Refusal::Unlisted
    );
}

#[test]
fn principal_is_bound_to_its_sources_and_revises_only_with_permission() {
    let principal =
        |grants: Grants| Principal { identity: Identity::new(Who::Token("t".to_owned()), Some(grants)), address: None };
    let check = |grants: Grants, sends: &str, sources: Option<&str>, revise: Option<&str>| {
        let principal = principal(grants);
        let found = principal.check_sources(&[source("nbkr"), source(sends)]).err();
        assert_eq!(found.as_ref().map(Refusal::reason), sources, "{sends}");
        assert_eq!(principal.check_revise().err().as_ref().map(Refusal::reason), revise);
    };
    let (bound, no_revise) = (Some([source("nbkr")].into()), Some("revise"));
    check(grants(Role::Read), "nbkr", Some("role"), no_revise);
    check(grants(Role::Ingest), "nbk", None, no_revise);
    check(Grants { sources: bound.clone(), ..grants(Role::Ingest) }, "nbkr", None, no_revise);
    check(Grants { sources: bound.clone(), ..grants(Role::Ingest) }, "nbk", Some("source"), no_revise);
    check(Grants { sources: bound, revise: true, role: Role::Ingest }, "nbk", Some("source"), None);
    check(grants(Role::Admin), "nbk", None, None);
    let refused = principal(Grants { sources: Some([source("nbkr")].into()), ..grants(Role::Ingest) });
    let message = refused.check_sources(&[source("cbu")]).unwrap_err().to_string();
    assert!(message.contains("may send ticks of nbkr, and not of cbu"), "{message}");
    assert_eq!(Principal::of(&Extensions::new()).unwrap_err().reason(), "missing", "no layer authorised the request");
}

#[test]
fn changed_file_replaces_tokens_and_invalid_file_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    let secrets = [Secret::generate().unwrap(), Secret::generate().unwrap()];
    let record =
        |at: usize| TokenRecord::new(["a", "b"][at], grants(Role::Read), secrets[at].sha256(), NOW, None).unwrap();
    std::fs::write(&path, encode(&[record(0)]).unwrap()).unwrap();
    let access = access(AccessSettings { tokens: Some(TokenFile::read(&path).unwrap()), ..AccessSettings::default() });
    let find = |at: usize| {
        access.authorize(Some(Need::Role(Role::Read)), &Peer::default(), Presented::Secret(secrets[at].expose()))
    };
    let before = find(0).unwrap();
    assert!(find(1).is_err());
    for broken in [&b"{"[..], b""] {
        std::fs::write(&path, broken).unwrap();
        access.reload();
        assert!(find(0).is_ok(), "a broken file changes nothing");
    }
    std::fs::remove_file(&path).unwrap();
    access.reload();
    assert!(find(0).is_ok() && !before.identity.ended().unwrap().is_cancelled());
    std::fs::write(&path, encode(&[record(1)]).unwrap()).unwrap();
    access.reload();
    assert!(find(0).is_err() && find(1).is_ok());
    assert!(before.identity.ended().unwrap().is_cancelled(), "calls of a revoked token end");
}

#[test]
fn valid_credentials_are_never_limited() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    let secret = Secret::generate().unwrap();
    std::fs::write(
        &path,
        encode(&[TokenRecord::new("a", grants(Role::Read), secret.sha256(), NOW, None).unwrap()]).unwrap(),
    )
    .unwrap();
    let access = access(AccessSettings { tokens: Some(TokenFile::read(&path).unwrap()), ..AccessSettings::default() });
    let peer = Peer { address: Some(IpAddr::from([192, 0, 2, 1])), ..Peer::default() };
    let reason = |presented| {
        access.authorize(Some(Need::Role(Role::Read)), &peer, presented).err().map(|refusal| refusal.reason())
    };
    for _ in 0..10 {
        assert_eq!(reason(Presented::Secret("wrong")), Some("unknown_token"));
    }
    assert_eq!(reason(Presented::Secret("wrong")), Some("rate_limited"));
    assert_eq!(reason(Presented::Malformed), Some("rate_limited"));
    assert_eq!(reason(Presented::Secret(secret.expose())), None);
    assert_eq!(reason(Presented::Nothing), Some("missing"), "a call without credentials is no failed attempt");
}
