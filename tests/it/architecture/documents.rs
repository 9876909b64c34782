//! The documents agree with the code: module dependencies, limits, file names, links and sizes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Arg, Args as _, Command};
use silkrate::config::LimitArgs;

use super::MODULE_DEPENDENCIES;
use super::source::{Source, Token, files, is_test_module};

const README_LINES_MAX: usize = 160;
const ARCHITECTURE_BYTES_MAX: usize = 20_480;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(document: &str) -> String {
    fs::read_to_string(root().join(document)).unwrap_or_else(|error| panic!("cannot read {document}: {error}"))
}

/// Returns all documents of the project, as paths from its root.
fn documents() -> Vec<String> {
    let listed = fs::read_dir(root().join("docs")).unwrap();
    let names = listed.map(|entry| format!("docs/{}", entry.unwrap().file_name().into_string().unwrap()));
    let markdown = names.filter(|name| Path::new(name).extension().is_some_and(|ending| ending == "md"));
    markdown.chain(["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "data/README.md"].map(str::to_owned)).collect()
}

/// Returns the cells of each table row of a document.
fn document_rows(document: &str) -> Vec<Vec<String>> {
    let text = read(document);
    let rows = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.map(|row| row.split(" | ").map(str::to_owned).collect()).collect()
}

#[test]
fn architecture_document_lists_the_dependencies_of_each_module() {
    let rows = document_rows("docs/ARCHITECTURE.md");
    for (name, allowed) in MODULE_DEPENDENCIES {
        let names = [format!("`{name}/`"), format!("`{name}.rs`")];
        let row = rows.iter().find(|row| row.len() == 3 && names.contains(&row[0]));
        let expect = if allowed.is_empty() { "nothing".to_owned() } else { allowed.join(", ") };
        assert_eq!(row.map(|row| row[2].as_str()), Some(expect.as_str()), "dependencies of {name}");
    }
}

/// Returns the source files that a document names in backticks, with or without `src/`.
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

/// Returns the targets of links in a document that point into this repository, without anchors.
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
    assert!(lines <= README_LINES_MAX, "README.md has {lines} lines; the limit is {README_LINES_MAX}");
    let bytes = read("docs/ARCHITECTURE.md").len();
    assert!(
        bytes <= ARCHITECTURE_BYTES_MAX,
        "ARCHITECTURE.md has {bytes} bytes; the limit is {ARCHITECTURE_BYTES_MAX}"
    );
}

#[test]
fn limits_document_names_every_limit_and_no_other() {
    let rows = document_rows("docs/LIMITS.md");
    let limits: Vec<&Vec<String>> = rows.iter().filter(|row| row.len() == 3 && row[2].contains(".rs`)")).collect();
    let sources: Vec<(PathBuf, Source)> = files()
        .into_iter()
        .filter(|(_, module, _)| !is_test_module(module))
        .map(|(path, module, text)| (path, Source::new(&module, &text)))
        .collect();
    let constants = |source: &Source| -> Vec<String> {
        let pairs = source.tokens.windows(2).filter(|tokens| tokens[0] == Token::Name("const".to_owned()));
        pairs.filter_map(|tokens| if let Token::Name(name) = &tokens[1] { Some(name.clone()) } else { None }).collect()
    };
    for (path, source) in &sources {
        let file = format!("(`{}`)", path.display());
        for name in constants(source).iter().filter(|name| name.ends_with("_MAX") || name.contains("_MAX_")) {
            let quoted = format!("`{name}`");
            let is_named = limits.iter().any(|row| row[0].contains(&quoted) && row[2].contains(&file));
            // Constants of one trait share a row.
            assert!(is_named, "{name} of {} is not in the table of limits", path.display());
        }
    }
    for row in limits {
        let file = row[2].rsplit("(`").next().and_then(|rest| rest.split('`').next()).unwrap_or_default();
        let source = sources.iter().find(|(path, _)| path.display().to_string() == file);
        let known =
            |name: &str| source.is_some_and(|(_, source)| source.tokens.contains(&Token::Name(name.to_owned())));
        for name in row[0].split(", ").map(|name| name.trim_matches('`')) {
            assert!(known(name), "src/{file} has no constant {name}");
        }
    }
}

#[test]
fn limits_document_has_each_setting_with_its_default_range_and_test() {
    let rows = document_rows("docs/LIMITS.md");
    let rows: Vec<&Vec<String>> = rows.iter().filter(|row| row.len() == 5 && row[0].starts_with("`--")).collect();
    let plain = |text: &str| text.replace([',', '`'], "");
    let flags = LimitArgs::augment_args(Command::new("limits"));
    let named = |row: &Vec<String>| plain(&row[0]);
    let long = |arg: &Arg| format!("--{}", arg.get_long().unwrap());
    assert_eq!(rows.iter().map(|row| named(row)).collect::<BTreeSet<_>>(), flags.get_arguments().map(long).collect());
    for arg in flags.get_arguments() {
        let row = rows.iter().find(|row| named(row) == long(arg)).unwrap();
        let help = arg.get_help().unwrap().to_string();
        let range = format!("from {}", plain(&row[2]));
        assert!(help.contains(&range), "{}: the help has no '{range}': {help}", row[0]);
        match arg.get_default_values() {
            [] => {
                // The default is the same text, but for the separators of digits.
                let default = plain(&help[help.find("[default: ").unwrap()..]);
                let number = plain(&row[1]).split(' ').next().unwrap().to_owned();
                assert!(default.contains(&number), "{}: {default} has no {number}", row[0]);
            }
            [default] => assert_eq!(plain(&row[1]), default.to_str().unwrap(), "{}", row[0]),
            more => panic!("{more:?}"),
        }
        let test = format!("fn {}(", plain(&row[4]));
        assert!(has_text(Path::new("src"), &test) || has_text(Path::new("tests"), &test), "{}: no {test}", row[0]);
    }
}

/// Returns true if a Rust file under `directory` contains `text`.
fn has_text(directory: &Path, text: &str) -> bool {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).any(|path| {
        if path.is_dir() {
            return has_text(&path, text);
        }
        path.extension() == Some("rs".as_ref()) && fs::read_to_string(&path).unwrap().contains(text)
    })
}
