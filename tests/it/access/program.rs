//! The program: the start of unprotected servers, `token`, and the token of the client commands.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use clap::Parser as _;
use silkrate::access::Role;
use silkrate::cli::Cli;
use silkrate::proto::v1;
use silkrate::proto::v1::ingest_service_client::IngestServiceClient;

use super::{Tokens, eventually, grants};
use crate::cli::command::{Ran, assert_contains, silkrate};
use crate::support::{TestServer, tick};

fn program(line: &str) -> Command {
    let mut command = silkrate(line);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SILKRATE_")) {
        command.env_remove(name);
    }
    command
}

fn run(mut command: Command) -> Ran {
    command.output().unwrap().into()
}

#[test]
fn server_that_others_can_reach_needs_protection_or_insecure() {
    let db = tempfile::tempdir().unwrap();
    let (tokens, _) = Tokens::of_roles();
    let check = |flags: &str, parts: &[&str]| {
        let ran = run(program(&format!("serve --db {} --reserve-mib 0 {flags}", db.path().display())));
        assert_eq!(ran.code, Some(2), "{flags}: {}", ran.stderr);
        assert_contains(flags, &ran.stderr, parts);
    };
    let all = "give --tls-cert, --tls-key and --tokens";
    check("--listen 0.0.0.0:0", &["--listen 0.0.0.0:0", "no TLS and tokens", all, "or give --insecure"]);
    check("--http-listen [::]:0", &["--http-listen [::]:0", "no TLS and tokens"]);
    check("--listen 192.0.2.1:0 --public-read", &["no TLS; give --tls-cert and --tls-key"]);
    check(&format!("--listen 0.0.0.0:0 --tokens {}", tokens.path().display()), &["the server has no TLS;"]);
    check("--tokens /nonexistent/t", &["cannot read the tokens in /nonexistent/t", "silkrate token create --tokens"]);
    std::fs::set_permissions(tokens.path(), std::fs::Permissions::from_mode(0o666)).unwrap();
    check(&format!("--tokens {}", tokens.path().display()), &["may be written by every user", "chmod 600"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn insecure_start_is_logged_each_time() {
    let db = tempfile::tempdir().unwrap();
    let line =
        format!("serve --db {} --reserve-mib 0 --listen 0.0.0.0:0 --http-listen none --insecure", db.path().display());
    for _ in 0..2 {
        let mut command = program(&line);
        let mut child =
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap();
        let mut log = String::new();
        let mut lines = std::io::BufReader::new(child.stderr.take().unwrap());
        while !log.contains("serving on") {
            assert!(std::io::BufRead::read_line(&mut lines, &mut log).unwrap() > 0, "{log}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_contains(&line, &log, &["WARN", "--insecure: there is no TLS", "--insecure: there are no tokens"]);
    }
}

#[test]
fn token_is_printed_once_and_its_file_has_only_the_hash() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens.json");
    let token = |line: &str| run(program(&format!("token {line} --tokens {}", path.display())));
    let created = token("create --role ingest --name feeder --expires 90d --sources nbkr,timesca --revise");
    assert_eq!(created.code, Some(0), "{}", created.stderr);
    let secret = created.stdout.trim();
    assert!(secret.starts_with("silkrate_") && secret.len() == 9 + 43, "{secret}");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let content = std::fs::read_to_string(&path).unwrap();
    assert!(!content.contains(secret) && !content.contains(&secret[9..]), "{content}");
    let json = token("create --role admin --name root --output json");
    assert_eq!(json.json()["role"], "admin");
    assert!(json.json()["token"].as_str().unwrap().starts_with("silkrate_"));
    let listed = token("list");
    assert_contains("list", &listed.stdout, &["feeder", "ingest", "nbkr,timesca", "root", "admin", "any"]);
    assert!(!listed.stdout.contains(secret) && !listed.stdout.contains("sha256"), "{}", listed.stdout);
    let listed = token("list --output json");
    assert_contains("list", &listed.stdout, &["\"feeder\"", "expires_time"]);
    assert!(!listed.stdout.contains("silkrate_"), "{}", listed.stdout);
    let again = token("create --role read --name root");
    assert_eq!(again.code, Some(1));
    assert_contains("again", &again.stderr, &["a token named 'root' exists; revoke it first"]);
    assert_contains(
        "role",
        &token("create --role read --name r --sources nbkr").stderr,
        &["the role 'read' has no sources"],
    );
    assert_eq!(token("revoke root").code, Some(0));
    assert_contains("revoke", &token("revoke root").stderr, &["no token is named 'root'; the names are: feeder"]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn concurrent_commands_lose_no_token() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens.json");
    let children: Vec<_> = (0..8)
        .map(|at| {
            let line = format!("token create --role read --name t{at} --tokens {}", path.display());
            program(&line).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(silkrate::access::tokens::TokenFile::read(&path).unwrap().records().len(), 8);
}

fn write_secret(dir: &Path, secret: &str) -> String {
    let path = dir.join("secret");
    std::fs::write(&path, format!("{secret}\n")).unwrap();
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn command_sends_the_token_of_its_file_or_variable() {
    let mut tokens = Tokens::new();
    let read = tokens.add("reader", grants(Role::Read), None);
    let ingest = tokens.add("feeder", grants(Role::Ingest), None);
    let path = tokens.path().display().to_string();
    let server = TestServer::start(&["--tokens", &path]).await;
    let client = super::Bearer::new(&ingest);
    let mut client = IngestServiceClient::with_interceptor(server.channel.clone(), client);
    let ticks = vec![tick("KGS/USD", -60, "0.01144")];
    client.ingest_ticks(v1::IngestTicksRequest { ticks, ..Default::default() }).await.unwrap();
    let command = |line: &str, variable: Option<&str>| {
        let mut command = program(&format!("{line} --endpoint {}", server.addr));
        if let Some(secret) = variable {
            command.env("SILKRATE_TOKEN", secret);
        }
        run(command)
    };
    let file = write_secret(tokens.dir.path(), &read);
    for ran in [command(&format!("latest --token-file {file}"), None), command("latest", Some(&read))] {
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert_contains("latest", &ran.stdout, &["KGS/USD", "0.01144"]);
    }
    let none = command("latest", None);
    assert_eq!(none.code, Some(1));
    assert_contains(
        "no token",
        &none.stderr,
        &["not authenticated", "needs the role 'read'", "--token-file or SILKRATE_TOKEN"],
    );
    let weak = command("source archive timesca", Some(&read));
    assert_contains(
        "weak",
        &weak.stderr,
        &["not allowed", "needs the role 'admin', and the token 'reader' has 'read'"],
    );
    let wrong = command("latest", Some("silkrate_wrong"));
    assert_contains("wrong", &wrong.stderr, &["the token is unknown or was revoked"]);
    assert!(!wrong.stderr.contains("silkrate_wrong"), "{}", wrong.stderr);
    let empty = write_secret(tokens.dir.path(), "");
    let ran = command(&format!("latest --token-file {empty}"), None);
    assert_eq!(ran.code, Some(2));
    assert_contains("empty", &ran.stderr, &["has no token; write the line into it"]);
    let far = run({
        let mut command = program("latest --endpoint http://192.0.2.1:1");
        command.env("SILKRATE_TOKEN", &read);
        command
    });
    assert_contains("far", &far.stderr, &["in plain text", "https://", "--allow-plaintext-token"]);
    assert!(!far.stderr.contains(&read), "{}", far.stderr);
}

/// Waits for a part of the log that a server writes to a file, and returns the text after it up to the end of the line.
async fn logged(log: &Path, part: &str) -> String {
    let mut found = None;
    eventually(part, async || {
        let text = std::fs::read_to_string(log).unwrap();
        let rest = text.split_once(part).and_then(|(_, rest)| rest.split_once('\n'));
        found = rest.map(|(line, _)| line.trim().to_owned());
        found.is_some()
    })
    .await;
    found.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_log_line_has_a_secret_at_any_level() {
    let (tokens, secrets) = Tokens::of_roles();
    let log = tokens.dir.path().join("log");
    let line = format!(
        "serve --db {} --reserve-mib 0 --listen 127.0.0.1:0 --http-listen 127.0.0.1:0 --log trace --tokens {}",
        tokens.dir.path().join("db").display(),
        tokens.path().display()
    );
    let mut command = program(&line);
    let mut child =
        command.stdout(std::process::Stdio::null()).stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
    let http: std::net::SocketAddr = logged(&log, "plain HTTP on http://").await.parse().unwrap();
    let grpc = logged(&log, " serving on ").await;
    let wrong = "silkrate_0123456789012345678901234567890123456789012";
    for secret in [secrets[0].as_str(), wrong] {
        let mut command = program(&format!("latest --endpoint {grpc}"));
        let ran = run({
            command.env("SILKRATE_TOKEN", secret);
            command
        });
        assert_eq!(ran.code, Some(i32::from(secret == wrong)), "{}", ran.stderr);
        for header in [("authorization", format!("Bearer {secret}")), ("cookie", format!("silkrate={secret}"))] {
            let answer = crate::web::get_with(http, "/v1/latest", &[(header.0, &header.1)]).await;
            assert_eq!(answer.status, if secret == wrong { 401 } else { 200 });
            assert!(!format!("{answer:?}").contains(secret), "{answer:?}");
        }
    }
    let metrics = crate::web::get_with(http, "/metrics", &[("authorization", &format!("Bearer {}", secrets[0]))]).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("TRACE") && text.contains("call refused"), "the log has every level");
    for secret in [secrets[0].as_str(), wrong] {
        assert!(!text.contains(&secret[9..]), "{:?}", text.lines().find(|line| line.contains(&secret[9..])));
        assert!(!metrics.body.contains(&secret[9..]));
    }
}

#[test]
fn no_flag_takes_a_secret_as_its_value() {
    let ran = Cli::try_parse_from(["silkrate", "latest", "--token", "silkrate_x"]);
    assert!(ran.is_err(), "a flag --token would show the secret in the list of processes");
}
