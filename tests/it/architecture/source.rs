//! Source files as Rust tokens, without comments, string contents and tests.

use std::fs;
use std::path::{Path, PathBuf};

use super::MODULE_DEPENDENCIES;
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The tokens of a file, without its tests.
pub(super) struct Source {
    /// The path from the root of the crate: `store::block` for `store/block.rs`, `store` for `store/mod.rs`.
    pub(super) module: String,
    pub(super) tokens: Vec<Token>,
}

/// A token, reduced to what the rules need.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Token {
    Name(String),
    Mark(char),
    Open,
    Close,
}

impl Source {
    pub(super) fn new(module: &str, text: &str) -> Self {
        let stream: TokenStream = text.parse().unwrap_or_else(|error| panic!("{module}: {error}"));
        let mut tokens = Vec::new();
        flatten(stream, &mut tokens);
        Self { module: module.to_owned(), tokens }
    }

    pub(super) fn top(&self) -> &str {
        self.module.split("::").next().unwrap_or_default()
    }

    /// Returns the first name of every path that begins at the root of this crate. For a group such as `crate::{a, b}`,
    /// returns the first name of each member.
    pub(super) fn inner_paths(&self) -> Vec<String> {
        let depth = self.module.split("::").count();
        let mut paths = Vec::new();
        for at in self.path_starts() {
            let mut next = at;
            let mut ups = 0;
            while self.name(next) == Some("super") && self.continues_path(next) {
                ups += 1;
                next += 3;
            }
            if self.name(at) == Some("crate") && self.continues_path(at) {
                self.members(at + 3, &mut paths);
            } else if ups >= depth {
                self.members(next, &mut paths);
            }
        }
        paths
    }

    /// Returns the other modules that this file names. The module above this file and the modules below it do not
    /// count.
    pub(super) fn used_files<'m>(&self, modules: &'m [String]) -> Vec<&'m str> {
        let own: Vec<&str> = self.module.split("::").collect();
        let mut used = Vec::new();
        for at in self.path_starts().filter(|at| self.continues_path(*at)) {
            let mut paths = Vec::new();
            self.full_paths(at, &[], &mut paths);
            for path in paths {
                let ups = path.iter().take_while(|name| *name == "super").count();
                let (base, rest) = match path.first().map(String::as_str) {
                    Some("crate") => (&[] as &[&str], &path[1..]),
                    Some("super") => (&own[..own.len().saturating_sub(ups)], &path[ups..]),
                    _ => continue,
                };
                let full = base.iter().copied().chain(rest.iter().map(String::as_str)).collect::<Vec<_>>().join("::");
                let longest = modules.iter().filter(|module| is_in(&full, module)).max_by_key(|module| module.len());
                if let Some(file) = longest.filter(|file| !is_in(&self.module, file) && !is_in(file, &self.module)) {
                    used.push(file.as_str());
                }
            }
        }
        used
    }

    /// Collects the paths that begin at token `at`, each prefixed with `before`. For a group, collects the paths of
    /// each member. Returns the position after the last path.
    pub(super) fn full_paths(&self, mut at: usize, before: &[String], paths: &mut Vec<Vec<String>>) -> usize {
        let mut path = before.to_vec();
        loop {
            match self.tokens.get(at) {
                Some(Token::Name(name)) => {
                    path.push(name.clone());
                    if !self.continues_path(at) {
                        paths.push(path);
                        return at + 1;
                    }
                    at += 3;
                }
                Some(Token::Open) => {
                    at += 1;
                    while let Some(token) = self.tokens.get(at) {
                        match token {
                            Token::Close => return at + 1,
                            Token::Name(_) => at = self.full_paths(at, &path, paths),
                            Token::Mark(_) | Token::Open => at += 1,
                        }
                    }
                    return at;
                }
                Some(Token::Mark(_) | Token::Close) | None => {
                    paths.push(path);
                    return at + 1;
                }
            }
        }
    }

    /// Collects the name at token `at`. If a group opens there, collects the first name of each member.
    pub(super) fn members(&self, at: usize, paths: &mut Vec<String>) {
        match self.tokens.get(at) {
            Some(Token::Name(name)) => paths.push(name.clone()),
            Some(Token::Open) => {
                let (mut depth, mut is_first) = (0, false);
                for token in &self.tokens[at..] {
                    match token {
                        Token::Open => {
                            depth += 1;
                            is_first = depth == 1;
                        }
                        Token::Close => depth -= 1,
                        Token::Mark(',') => is_first = depth == 1,
                        Token::Name(name) if is_first && depth == 1 => {
                            paths.push(name.clone());
                            is_first = false;
                        }
                        Token::Name(_) | Token::Mark(_) => {}
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
            Some(Token::Mark(_) | Token::Close) | None => {}
        }
    }

    /// Returns the positions of names that do not follow `::`.
    pub(super) fn path_starts(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.tokens.len()).filter(|at| {
            let after_path =
                *at > 1 && self.tokens[*at - 1] == Token::Mark(':') && self.tokens[*at - 2] == Token::Mark(':');
            // `::sled` is a crate too: no name precedes its colons.
            let before = at.checked_sub(3).and_then(|before| self.name(before));
            let is_rooted = after_path && before.is_none_or(|before| before == "use");
            matches!(self.tokens[*at], Token::Name(_)) && (!after_path || is_rooted)
        })
    }

    pub(super) fn name(&self, at: usize) -> Option<&str> {
        match self.tokens.get(at)? {
            Token::Name(name) => Some(name),
            Token::Mark(_) | Token::Open | Token::Close => None,
        }
    }

    /// Returns true if `::` follows the token at `at`.
    pub(super) fn continues_path(&self, at: usize) -> bool {
        self.tokens.get(at + 1..at + 3) == Some(&[Token::Mark(':'), Token::Mark(':')])
    }

    /// Returns true if a path begins with the name of this crate.
    pub(super) fn names_crate(&self, name: &str) -> bool {
        self.path_starts().any(|at| {
            let is_used = at > 0 && matches!(self.name(at - 1), Some("use" | "crate"));
            self.name(at) == Some(name) && (self.continues_path(at) || is_used)
        })
    }

    pub(super) fn has(&self, wanted: &[Token]) -> bool {
        self.tokens.windows(wanted.len()).any(|tokens| tokens == wanted)
    }
}

/// Appends the tokens in order, without items that exist only for tests.
pub(super) fn flatten(stream: TokenStream, tokens: &mut Vec<Token>) {
    let stream: Vec<TokenTree> = stream.into_iter().collect();
    let mut at = 0;
    while let Some(token) = stream.get(at) {
        at += 1;
        match token {
            TokenTree::Punct(mark) if mark.as_char() == '#' && is_test_attribute(stream.get(at)) => {
                // The item ends with its braces or a semicolon.
                while let Some(token) = stream.get(at) {
                    at += 1;
                    match token {
                        TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => break,
                        TokenTree::Punct(mark) if mark.as_char() == ';' => break,
                        TokenTree::Group(_) | TokenTree::Punct(_) | TokenTree::Ident(_) | TokenTree::Literal(_) => {}
                    }
                }
            }
            TokenTree::Punct(mark) => tokens.push(Token::Mark(mark.as_char())),
            TokenTree::Ident(name) => tokens.push(Token::Name(name.to_string())),
            TokenTree::Literal(_) => tokens.push(Token::Mark('"')),
            TokenTree::Group(group) => {
                tokens.push(Token::Open);
                flatten(group.stream(), tokens);
                tokens.push(Token::Close);
            }
        }
    }
}

/// Returns true for a module of unit tests, which is named `tests` or lies in one of this name.
pub(super) fn is_test_module(module: &str) -> bool {
    module.split("::").any(|part| part == "tests")
}

pub(super) fn is_test_attribute(token: Option<&TokenTree>) -> bool {
    token.is_some_and(|token| token.to_string().replace(' ', "") == "[cfg(test)]")
}

/// Returns true if a module is `ancestor` or inside `ancestor`.
pub(super) fn is_in(module: &str, ancestor: &str) -> bool {
    module.strip_prefix(ancestor).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Returns all files of `src/`, with their modules.
pub(super) fn files() -> Vec<(PathBuf, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &root, &mut files);
    assert!(files.len() > MODULE_DEPENDENCIES.len(), "only {} files were found in src/", files.len());
    files
}

pub(super) fn collect(root: &Path, directory: &Path, files: &mut Vec<(PathBuf, String, String)>) {
    for entry in fs::read_dir(directory).expect("src/ can be listed") {
        let path = entry.expect("src/ can be listed").path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let inside = path.strip_prefix(root).expect("a path below src/").with_extension("");
            let mut names: Vec<_> = inside.iter().map(|name| name.to_string_lossy().into_owned()).collect();
            if names.last().is_some_and(|name| name == "mod") {
                names.pop();
            }
            let text = fs::read_to_string(&path).expect("a source file is text");
            files.push((inside.with_extension("rs"), names.join("::"), text));
        }
    }
}
