//! The documents agree with the code: module dependencies, limits, file names, links and sizes.

use std::fs;
use std::path::{Path, PathBuf};

use super::ARROWS;
use super::source::{Source, Word, files};

const README_LINES_MAX: usize = 160;
const ARCHITECTURE_BYTES_MAX: usize = 20_480;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(document: &str) -> String {
    fs::read_to_string(root().join(document)).unwrap_or_else(|error| panic!("cannot read {document}: {error}"))
}

/// All documents of the project, by path from its root.
fn documents() -> Vec<String> {
    let listed = fs::read_dir(root().join("docs")).unwrap();
    let names = listed.map(|entry| format!("docs/{}", entry.unwrap().file_name().into_string().unwrap()));
    let markdown = names.filter(|name| Path::new(name).extension().is_some_and(|ending| ending == "md"));
    markdown.chain(["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "data/README.md"].map(str::to_owned)).collect()
}

/// The rows of all tables in a document: the cells of each row.
fn document_rows(document: &str) -> Vec<Vec<String>> {
    let text = read(document);
    let rows = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.map(|row| row.split(" | ").map(str::to_owned).collect()).collect()
}

#[test]
fn the_document_has_the_same_arrows() {
    let rows = document_rows("docs/ARCHITECTURE.md");
    for (name, allowed) in ARROWS {
        let names = [format!("`{name}/`"), format!("`{name}.rs`")];
        let row = rows.iter().find(|row| row.len() == 3 && names.contains(&row[0]));
        let expect = if allowed.is_empty() { "nothing".to_owned() } else { allowed.join(", ") };
        assert_eq!(row.map(|row| row[2].as_str()), Some(expect.as_str()), "what {name} knows");
    }
}

/// The source files that a document names in backticks, with or without `src/`.
fn named_files(document: &str) -> Vec<String> {
    let text = read(document);
    let quoted = text.split('`').skip(1).step_by(2).filter(|quoted| !quoted.contains(char::is_whitespace));
    let is_file =
        |quoted: &&str| quoted.contains('/') && Path::new(quoted).extension().is_some_and(|ending| ending == "rs");
    quoted.filter(is_file).map(str::to_owned).collect()
}

#[test]
fn files_named_in_documents_exist() {
    let mut count = 0;
    for document in documents() {
        let named = named_files(&document);
        count += named.len();
        let exists = |name: &String| root().join("src").join(name).is_file() || root().join(name).is_file();
        let missing: Vec<&String> = named.iter().filter(|name| !exists(name)).collect();
        assert_eq!(missing, Vec::<&String>::new(), "{document}");
    }
    assert!(count > 100, "only {count} files were found in the documents");
}

/// The targets of the links in a document that point into this repository, without their anchors.
fn links(document: &str) -> Vec<String> {
    let text = read(document);
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let local = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    local.map(|target| target.split('#').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn links_between_documents_resolve() {
    let mut count = 0;
    for document in documents() {
        let directory = root().join(&document);
        let directory = directory.parent().unwrap();
        for link in links(&document) {
            assert!(directory.join(&link).exists(), "{document} links to {link}, which does not exist");
            count += 1;
        }
    }
    assert!(count > 10, "only {count} links were found in the documents");
}

#[test]
fn readme_and_architecture_stay_short() {
    let lines = read("README.md").lines().count();
    assert!(lines <= README_LINES_MAX, "README.md has {lines} lines; {README_LINES_MAX} are allowed");
    let bytes = read("docs/ARCHITECTURE.md").len();
    assert!(bytes <= ARCHITECTURE_BYTES_MAX, "ARCHITECTURE.md has {bytes} bytes; {ARCHITECTURE_BYTES_MAX} are allowed");
}

#[test]
fn the_document_names_every_limit_and_no_other() {
    let rows = document_rows("docs/LIMITS.md");
    let limits: Vec<&Vec<String>> = rows.iter().filter(|row| row.len() == 3 && row[2].contains(".rs`)")).collect();
    let sources: Vec<(PathBuf, Source)> = files()
        .into_iter()
        .filter(|(_, module, _)| !module.ends_with("::tests"))
        .map(|(path, module, text)| (path, Source::new(&module, &text)))
        .collect();
    let constants = |source: &Source| -> Vec<String> {
        let pairs = source.words.windows(2).filter(|words| words[0] == Word::Name("const".to_owned()));
        pairs.filter_map(|words| if let Word::Name(name) = &words[1] { Some(name.clone()) } else { None }).collect()
    };
    for (path, source) in &sources {
        let place = format!("(`{}`)", path.display());
        for name in constants(source).iter().filter(|name| name.ends_with("_MAX") || name.contains("_MAX_")) {
            let quoted = format!("`{name}`");
            let is_named = limits.iter().any(|row| row[0].contains(&quoted) && row[2].contains(&place));
            // Kinds of one trait share a row.
            assert!(is_named, "{name} of {} is not in the table of limits", path.display());
        }
    }
    for row in limits {
        let place = row[2].rsplit("(`").next().and_then(|rest| rest.split('`').next()).unwrap_or_default();
        let source = sources.iter().find(|(path, _)| path.display().to_string() == place);
        let known = |name: &str| source.is_some_and(|(_, source)| source.words.contains(&Word::Name(name.to_owned())));
        for name in row[0].split(", ").map(|name| name.trim_matches('`')) {
            assert!(known(name), "{name} is not in src/{place} any more");
        }
    }
}
