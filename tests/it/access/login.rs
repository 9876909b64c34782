//! The login of browsers: the form, the cookie and its flags, and forms of other sites.

use silkrate::access::Role;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::certificates::Authority;
use super::{Tokens, eventually, grants};
use crate::support::TestServer;
use crate::web::{Connection, Response, get_with};

async fn start(tokens: &Tokens) -> TestServer {
    TestServer::start(&["--tokens", &tokens.path().display().to_string()]).await
}

async fn post(server: &TestServer, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
    let lines: String = headers.iter().map(|(name, value)| [name, ": ", value, "\r\n"].concat()).collect();
    let length = body.len();
    let request =
        format!("POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {length}\r\n{lines}\r\n{body}", server.http_addr);
    Connection::open(server.http_addr).await.send(request.as_bytes(), true).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn page_asks_once_and_keeps_the_token_in_a_protected_cookie() {
    let (mut tokens, [read, ..]) = Tokens::of_roles();
    let server = start(&tokens).await;
    for path in ["/", "/pair/KGS/USD?window=7d"] {
        let asked = get_with(server.http_addr, path, &[]).await;
        assert_eq!((asked.status, asked.header("cache-control")), (401, Some("no-store")), "{asked:?}");
        assert!(
            asked.body.contains("action=\"/login\"") && asked.body.contains(&format!("value=\"{path}\"")),
            "{asked:?}"
        );
        assert!(!asked.body.contains("<script"), "the form works without a script");
        assert!(asked.header("content-security-policy").unwrap().contains("form-action 'self'"));
        assert_eq!(asked.header("referrer-policy"), Some("same-origin"));
    }
    let origin = format!("http://{}", server.http_addr);
    let own = [("origin", origin.as_str())];
    let wrong = post(&server, "/login", &own, "token=silkrate_wrong&next=/").await;
    assert_eq!((wrong.status, wrong.header("set-cookie")), (401, None));
    assert!(wrong.body.contains("unknown or was revoked") && !wrong.body.contains("silkrate_wrong"), "{wrong:?}");
    let entered = post(&server, "/login", &own, &format!("token={read}&next=%2Fpair%2FKGS%2FUSD")).await;
    assert_eq!((entered.status, entered.header("location")), (303, Some("/pair/KGS/USD")), "{entered:?}");
    let cookie = entered.header("set-cookie").unwrap();
    assert_eq!(cookie, format!("silkrate={read}; Path=/; Max-Age=2592000; HttpOnly; SameSite=Strict"));
    let elsewhere = post(&server, "/login", &own, &format!("token={read}&next=//evil.example")).await;
    assert_eq!(elsewhere.header("location"), Some("/"));
    // The cookie opens the pages and what they load.
    let sent = format!("other=1; silkrate={read}");
    for path in ["/", "/v1/latest", "/live"] {
        assert_eq!(get_with(server.http_addr, path, &[("cookie", &sent)]).await.status, 200, "{path}");
    }
    // A revoked token: the form again, and the browser forgets the cookie.
    tokens.revoke("read");
    eventually("a refusal", async || get_with(server.http_addr, "/", &[("cookie", &sent)]).await.status == 401).await;
    let refused = get_with(server.http_addr, "/", &[("cookie", &sent)]).await;
    assert_eq!(refused.header("set-cookie"), Some("silkrate=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict"));
}

#[tokio::test]
async fn browser_that_must_wait_keeps_its_cookie() {
    let (tokens, [read, ..]) = Tokens::of_roles();
    let path = tokens.path().display().to_string();
    let server = TestServer::start(&["--tokens", &path, "--client-calls", "2"]).await;
    let sent = format!("silkrate={read}");
    for _ in 0..2 {
        assert_eq!(get_with(server.http_addr, "/", &[("cookie", &sent)]).await.status, 200);
    }
    let limited = get_with(server.http_addr, "/", &[("cookie", &sent)]).await;
    assert_eq!((limited.status, limited.header("retry-after"), limited.header("set-cookie")), (429, Some("1"), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn form_of_another_site_is_refused_and_logout_removes_the_cookie() {
    let (tokens, [read, ..]) = Tokens::of_roles();
    let server = start(&tokens).await;
    let origin = format!("http://{}", server.http_addr);
    let body = format!("token={read}");
    for headers in [
        &[("origin", "https://evil.example")][..],
        &[("origin", "null")],
        &[],
        &[("origin", &origin), ("sec-fetch-site", "cross-site")],
    ] {
        let refused = post(&server, "/login", headers, &body).await;
        assert_eq!((refused.status, refused.header("set-cookie")), (403, None), "{headers:?}");
        assert_eq!(post(&server, "/logout", headers, "").await.status, 403, "{headers:?}");
    }
    let left = post(&server, "/logout", &[("origin", &origin)], "").await;
    assert_eq!((left.status, left.header("location")), (303, Some("/login")));
    assert!(left.header("set-cookie").unwrap().starts_with("silkrate=; Path=/; Max-Age=0;"), "{left:?}");
    // Bodies are limited, and all other routes refuse them.
    let large = post(&server, "/login", &[("origin", &origin)], &format!("token={}", "x".repeat(5_000))).await;
    assert_eq!(large.status, 413);
    assert_eq!(post(&server, "/v1/latest", &[("origin", &origin)], &body).await.status, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn cookie_is_secure_under_tls() {
    let authority = Authority::new();
    let mut tokens = Tokens::new();
    let read = tokens.add("reader", grants(Role::Read), None);
    let flags = [authority.flags(), vec!["--tokens".to_owned(), tokens.path().display().to_string()]].concat();
    let server = TestServer::start(&flags.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let ask = async |text: String| {
        let mut stream = authority.open(server.http_addr, &["http/1.1"], None).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let body = format!("token={read}");
    let head = "host: localhost\r\nsec-fetch-site: same-origin\r\nconnection: close";
    let answer = ask(format!("POST /login HTTP/1.1\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    let cookie =
        format!("set-cookie: __Host-silkrate={read}; Path=/; Max-Age=2592000; HttpOnly; SameSite=Strict; Secure\r\n");
    assert!(answer.contains(&cookie), "{answer}");
    let answer = ask(format!("GET / HTTP/1.1\r\n{head}\r\ncookie: __Host-silkrate={read}\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer = ask(format!("GET / HTTP/1.1\r\n{head}\r\ncookie: silkrate={read}\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "another host could set this cookie: {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn open_server_asks_for_no_token() {
    let server = TestServer::start(&[]).await;
    assert_eq!(get_with(server.http_addr, "/", &[]).await.status, 200);
    let form = get_with(server.http_addr, "/login", &[]).await;
    assert_eq!((form.status, form.header("location")), (303, Some("/")));
}
