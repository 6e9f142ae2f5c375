//! What we are made of: dependencies under licences that go with ours, from the public registry, and no trace of a machine.

use anyhow::{Context, Result, ensure};
use kagero_images::command::{command, text};
use serde_json::Value;
use spdx::{Expression, ParseMode};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Licences that go with Apache-2.0 OR BSD-3-Clause. A new one is a decision, not a formality.
const ALLOWED: [&str; 11] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// The workspace's licence, which each of its packages states.
const OURS: &str = "Apache-2.0 OR BSD-3-Clause";

/// Where dependencies come from, as Cargo.lock names it.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Folders below which people live.
const HOMES: [&str; 2] = ["/home/", "/Users/"];

/// Looks at every package of the workspace and every one it depends on, on whatever platform.
pub(crate) fn licences() -> Result<()> {
    let metadata = text(&mut command([env!("CARGO"), "metadata", "--format-version", "1", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("what cargo metadata says")?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let wrong: Vec<String> = packages.iter().filter_map(package).collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    println!("   {} packages", packages.len());
    Ok(())
}

/// What is wrong with a package, if anything is.
fn package(package: &Value) -> Option<String> {
    let name = package["name"].as_str().unwrap_or("a package without a name");
    let Some(licence) = package["license"].as_str() else {
        return Some(format!("{name}: states no licence"));
    };
    match package["source"].as_str() {
        None => (licence != OURS).then(|| format!("{name}: is ours, and its licence is not {OURS}")),
        Some(source) if source != REGISTRY => Some(format!("{name}: comes from {source}")),
        Some(_) => {
            (!allowed(licence)).then(|| format!("{name}: the licence {licence} is not among those allowed"))
        }
    }
}

/// Whether an SPDX expression can be fulfilled with allowed licences alone.
fn allowed(licence: &str) -> bool {
    // Lax: some packages still write "MIT/Apache-2.0".
    Expression::parse_mode(licence, ParseMode::LAX)
        .is_ok_and(|licence| licence.evaluate(|one| ALLOWED.contains(&one.to_string().as_str())))
}

/// Looks for paths of this machine in every file that is, or is about to be, in the repository.
pub(crate) fn paths() -> Result<()> {
    // Whoever owns the folder.
    let git = |words: &[&str]| command([&["git", "-c", "safe.directory=*"], words].concat());
    let root = PathBuf::from(text(&mut git(&["rev-parse", "--show-toplevel"]))?.trim());
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let files = text(git(&list).current_dir(&root))?;
    let own = own_paths(&root);
    let mut wrong = Vec::new();
    for file in files.split_terminator('\0') {
        // A file that is deleted, and not yet in the index, is no matter.
        let Ok(bytes) = fs::read(root.join(file)) else { continue };
        // This one has to name them.
        if file != "xtask/src/provenance.rs" {
            wrong.extend(
                mentions(&String::from_utf8_lossy(&bytes), &own).map(|line| format!("{file}:{line}")),
            );
        }
    }
    ensure!(wrong.is_empty(), "paths of a machine in {}", wrong.join(", "));
    Ok(())
}

/// Where this repository and cargo's files are. Not what is too short to mean one machine, as `/root`.
fn own_paths(root: &Path) -> Vec<String> {
    let folders =
        [Some(root.into()), env::var_os("CARGO_HOME"), env::var_os("RUSTUP_HOME"), env::var_os("HOME")];
    let paths = folders.into_iter().flatten().map(|path| path.to_string_lossy().into_owned());
    paths.filter(|path| path.matches('/').count() > 1).chain(HOMES.map(str::to_owned)).collect()
}

/// The lines of `text` that have one of `paths` in them, counted from 1.
fn mentions(text: &str, paths: &[String]) -> impl Iterator<Item = usize> {
    (1..)
        .zip(text.lines())
        .filter_map(|(number, line)| paths.iter().any(|path| line.contains(path.as_str())).then_some(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn expressions_are_evaluated() {
        for licence in [
            "MIT",
            "MIT/Apache-2.0",
            "MIT OR Apache-2.0 OR LGPL-2.1-or-later",
            "(MIT OR GPL-2.0-only) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(allowed(licence), "{licence}");
        }
        for licence in [
            "GPL-3.0-only",
            "MIT AND LGPL-2.1-or-later",
            "GPL-2.0-only WITH Classpath-exception-2.0",
            "MPL-2.0",
            "whatever",
            "",
        ] {
            assert!(!allowed(licence), "{licence}");
        }
    }

    #[test]
    fn packages_say_what_is_wrong_with_them() {
        let of = |licence: Value, source: Value| {
            package(&json!({ "name": "a", "license": licence, "source": source }))
        };
        assert_eq!(of(json!("MIT"), json!(REGISTRY)), None);
        assert_eq!(of(json!(OURS), Value::Null), None);
        assert_eq!(of(Value::Null, json!(REGISTRY)), Some("a: states no licence".into()));
        assert_eq!(
            of(json!("MIT"), json!("git+https://a.example/a")),
            Some("a: comes from git+https://a.example/a".into())
        );
        assert_eq!(of(json!("MIT"), Value::Null), Some(format!("a: is ours, and its licence is not {OURS}")));
        assert_eq!(
            of(json!("AGPL-3.0-only"), json!(REGISTRY)),
            Some("a: the licence AGPL-3.0-only is not among those allowed".into())
        );
    }

    #[test]
    fn a_path_is_found_in_its_line() {
        let own = own_paths(Path::new("/srv/build/kagero"));
        let text = "one\nsee /srv/build/kagero/src\n/usr/share/seabios\n/home/somebody/x";
        assert_eq!(mentions(text, &own).collect::<Vec<_>>(), [2, 4]);
    }
}
