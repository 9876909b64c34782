//! Source files as Rust tokens, without comments, strings and tests.

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// What one file says, without its tests.
pub(super) struct Source {
    /// From the crate's root: `store::block`; `store` for its `mod.rs`.
    pub(super) module: String,
    pub(super) words: Vec<Word>,
}

/// A token, as far as it matters here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Word {
    Name(String),
    Mark(char),
    Open,
    Close,
}

impl Source {
    pub(super) fn new(module: &str, text: &str) -> Self {
        let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{module}: {error}"));
        let mut words = Vec::new();
        flatten(tokens, &mut words);
        Self { module: module.to_owned(), words }
    }

    pub(super) fn top(&self) -> &str {
        self.module.split("::").next().unwrap_or_default()
    }

    /// Every path written here that starts in this crate, from its root; of a group, each member.
    pub(super) fn inner_paths(&self) -> Vec<String> {
        let depth = self.module.split("::").count();
        let mut paths = Vec::new();
        for at in self.path_starts() {
            let mut next = at;
            let mut ups = 0;
            while self.name(next) == Some("super") && self.is_path_on(next) {
                ups += 1;
                next += 3;
            }
            if self.name(at) == Some("crate") && self.is_path_on(at) {
                self.members(at + 3, &mut paths);
            } else if ups >= depth {
                self.members(next, &mut paths);
            }
        }
        paths
    }

    /// The other files of this crate that are named here, each as the path of its module. A file knows the one above it
    /// and those below it by its nature, so that neither counts.
    pub(super) fn known_files<'m>(&self, modules: &'m [String]) -> Vec<&'m str> {
        let own: Vec<&str> = self.module.split("::").collect();
        let mut known = Vec::new();
        for at in self.path_starts().filter(|at| self.is_path_on(*at)) {
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
                    known.push(file.as_str());
                }
            }
        }
        known
    }

    /// The paths that begin at `at` with what stands before it; of a group, those of each member. Gives where they end.
    pub(super) fn full_paths(&self, mut at: usize, before: &[String], paths: &mut Vec<Vec<String>>) -> usize {
        let mut path = before.to_vec();
        loop {
            match self.words.get(at) {
                Some(Word::Name(name)) => {
                    path.push(name.clone());
                    if !self.is_path_on(at) {
                        paths.push(path);
                        return at + 1;
                    }
                    at += 3;
                }
                Some(Word::Open) => {
                    at += 1;
                    while let Some(word) = self.words.get(at) {
                        match word {
                            Word::Close => return at + 1,
                            Word::Name(_) => at = self.full_paths(at, &path, paths),
                            Word::Mark(_) | Word::Open => at += 1,
                        }
                    }
                    return at;
                }
                Some(Word::Mark(_) | Word::Close) | None => {
                    paths.push(path);
                    return at + 1;
                }
            }
        }
    }

    /// The first name at `at`, or of each member of the group that opens there.
    pub(super) fn members(&self, at: usize, paths: &mut Vec<String>) {
        match self.words.get(at) {
            Some(Word::Name(name)) => paths.push(name.clone()),
            Some(Word::Open) => {
                let (mut depth, mut is_first) = (0, false);
                for word in &self.words[at..] {
                    match word {
                        Word::Open => {
                            depth += 1;
                            is_first = depth == 1;
                        }
                        Word::Close => depth -= 1,
                        Word::Mark(',') => is_first = depth == 1,
                        Word::Name(name) if is_first && depth == 1 => {
                            paths.push(name.clone());
                            is_first = false;
                        }
                        Word::Name(_) | Word::Mark(_) => {}
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
            Some(Word::Mark(_) | Word::Close) | None => {}
        }
    }

    /// Where names stand that no `::` leads to.
    pub(super) fn path_starts(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.words.len()).filter(|at| {
            let after_path =
                *at > 1 && self.words[*at - 1] == Word::Mark(':') && self.words[*at - 2] == Word::Mark(':');
            // `::sled` is a crate too: no name stands before its colons.
            let before = at.checked_sub(3).and_then(|before| self.name(before));
            let is_rooted = after_path && before.is_none_or(|before| before == "use");
            matches!(self.words[*at], Word::Name(_)) && (!after_path || is_rooted)
        })
    }

    pub(super) fn name(&self, at: usize) -> Option<&str> {
        match self.words.get(at)? {
            Word::Name(name) => Some(name),
            Word::Mark(_) | Word::Open | Word::Close => None,
        }
    }

    pub(super) fn is_path_on(&self, at: usize) -> bool {
        self.words.get(at + 1..at + 3) == Some(&[Word::Mark(':'), Word::Mark(':')])
    }

    /// Whether a path that starts here begins with this crate's name.
    pub(super) fn names_crate(&self, name: &str) -> bool {
        self.path_starts().any(|at| {
            let is_used = at > 0 && matches!(self.name(at - 1), Some("use" | "crate"));
            self.name(at) == Some(name) && (self.is_path_on(at) || is_used)
        })
    }

    pub(super) fn has(&self, wanted: &[Word]) -> bool {
        self.words.windows(wanted.len()).any(|words| words == wanted)
    }
}

/// The tokens one after the other, without what is there for tests alone.
pub(super) fn flatten(tokens: TokenStream, words: &mut Vec<Word>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token {
            TokenTree::Punct(mark) if mark.as_char() == '#' && is_test_attribute(tokens.get(at)) => {
                // The item ends with its braces or a semicolon.
                while let Some(token) = tokens.get(at) {
                    at += 1;
                    match token {
                        TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => break,
                        TokenTree::Punct(mark) if mark.as_char() == ';' => break,
                        TokenTree::Group(_) | TokenTree::Punct(_) | TokenTree::Ident(_) | TokenTree::Literal(_) => {}
                    }
                }
            }
            TokenTree::Punct(mark) => words.push(Word::Mark(mark.as_char())),
            TokenTree::Ident(name) => words.push(Word::Name(name.to_string())),
            TokenTree::Literal(_) => words.push(Word::Mark('"')),
            TokenTree::Group(group) => {
                words.push(Word::Open);
                flatten(group.stream(), words);
                words.push(Word::Close);
            }
        }
    }
}

pub(super) fn is_test_attribute(token: Option<&TokenTree>) -> bool {
    token.is_some_and(|token| token.to_string().replace(' ', "") == "[cfg(test)]")
}

/// Whether a module is `place` or below it.
pub(super) fn is_in(module: &str, place: &str) -> bool {
    module.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// All files of `src/`, with their modules.
pub(super) fn files() -> Vec<(PathBuf, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &root, &mut files);
    assert!(files.len() > ARROWS.len(), "src/ was not found whole");
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
