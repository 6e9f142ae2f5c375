//! Where this machine's apt takes Debian's packages from. Mirrors, keys and options are read from its own
//! configuration, so that what we add or build uses the same ones.

use crate::command::{command, text};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;

/// One suite at one place: a line of sources.list, or a part of a stanza in a .sources file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where the archive is.
    pub uri: String,
    /// The suite, such as `bookworm-updates`.
    pub suite: String,
    /// The components, such as `main`.
    pub components: Vec<String>,
    /// The path of the keyring, where one is named.
    pub signed_by: Option<String>,
}

impl Source {
    /// The line for a sources.list.
    pub fn line(&self) -> String {
        let option = self.signed_by.as_ref().map(|key| format!("[signed-by={key}] ")).unwrap_or_default();
        format!("deb {option}{} {} {}", self.uri, self.suite, self.components.join(" "))
    }

    /// The same archive's other suite, component main.
    pub fn with_suite(&self, suite: &str) -> Source {
        Source { suite: suite.into(), components: vec!["main".into()], ..self.clone() }
    }
}

/// All binary package sources below an apt configuration directory, `/etc/apt`.
///
/// # Errors
/// The directory can't be read.
pub fn sources(etc_apt: &Path) -> Result<Vec<Source>> {
    let mut files = vec![etc_apt.join("sources.list")];
    if let Ok(parts) = fs::read_dir(etc_apt.join("sources.list.d")) {
        files.extend(parts.filter_map(|entry| Some(entry.ok()?.path())));
    }
    files.sort();
    let mut sources = Vec::new();
    for file in files {
        let parse = match file.extension().and_then(|e| e.to_str()) {
            Some("list") => parse_list,
            Some("sources") => parse_deb822,
            _ => continue,
        };
        match fs::read_to_string(&file) {
            Ok(text) => sources.extend(parse(&text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).with_context(|| format!("{}", file.display())),
        }
    }
    Ok(sources)
}

/// The release's code name, such as `bookworm`, from `/etc/os-release`.
///
/// # Errors
/// This is not Debian.
pub fn codename() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("/etc/os-release")?;
    let value =
        |key| text.lines().find_map(|line| line.strip_prefix(key)).map(|v| v.trim_matches('"').to_owned());
    match (value("ID="), value("VERSION_CODENAME=")) {
        (Some(id), Some(codename)) if id == "debian" => Ok(codename),
        (id, _) => bail!(
            "this is {}, not Debian; Kagero's set-up needs Debian 12",
            id.unwrap_or("no known system".into())
        ),
    }
}

/// What fetching is configured to do (proxies, dates), as apt.conf lines to hand on to another apt.
///
/// # Errors
/// apt-config can't be run.
pub fn acquire_options() -> Result<String> {
    let dump = text(&mut command(["apt-config", "dump"]))?;
    let ours = |line: &&str| {
        line.starts_with("Acquire::")
            && !line.ends_with("\"\";")
            && !line.starts_with("Acquire::IndexTargets")
    };
    Ok(dump.lines().filter(ours).map(|line| format!("{line}\n")).collect())
}

fn parse_list(text: &str) -> Vec<Source> {
    text.lines().filter_map(parse_line).collect()
}

/// `deb [option=value ...] uri suite component...`, sources.list(5).
fn parse_line(line: &str) -> Option<Source> {
    let rest = line.split('#').next()?.trim().strip_prefix("deb ")?.trim();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source {
        uri: words.next()?,
        suite: words.next()?,
        components: words.collect(),
        signed_by: signed_by.map(str::to_owned),
    })
}

/// Stanzas of `Key: value` lines, sources.list(5); a key embedded in the stanza is left out.
fn parse_deb822(text: &str) -> Vec<Source> {
    let text: String =
        text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    let mut sources = Vec::new();
    for stanza in text.split("\n\n") {
        let field = |key: &str| {
            let is_key = |line: &&str| {
                line.split_once(':').is_some_and(|(name, _)| name.trim().eq_ignore_ascii_case(key))
            };
            stanza.lines().find(is_key).and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
        };
        let words =
            |key| field(key).unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let enabled = field("Enabled").is_none_or(|value| value != "no");
        if !enabled || !words("Types").iter().any(|kind| kind == "deb") {
            continue;
        }
        let signed_by = field("Signed-By").filter(|path| path.starts_with('/'));
        for uri in words("URIs") {
            sources.extend(words("Suites").into_iter().map(|suite| Source {
                uri: uri.clone(),
                suite,
                components: words("Components"),
                signed_by: signed_by.clone(),
            }));
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let list = "# a mirror\ndeb [arch=amd64 signed-by=/k.gpg] mirror://m/debian stable main contrib # x\ndeb-src mirror://m a b\n";
        let stanza = "Types: deb deb-src\n# a comment\nURIs: mirror://m/debian\nSuites: stable\nComponents: main contrib\nSigned-By: /k.gpg\n";
        let want = Source {
            uri: "mirror://m/debian".into(),
            suite: "stable".into(),
            components: vec!["main".into(), "contrib".into()],
            signed_by: Some("/k.gpg".into()),
        };
        assert_eq!(parse_list(list), std::slice::from_ref(&want));
        assert_eq!(parse_deb822(stanza), std::slice::from_ref(&want));
        assert_eq!(parse_list(&want.line()), [want]);
    }

    #[test]
    fn stanzas_that_are_off_or_of_another_kind_are_left_out() {
        let text = "Types: deb\nURIs: a: b:\nSuites: one two\nComponents: main\n\nTypes: deb\nEnabled: no\nURIs: c:\nSuites: x\n\nTypes: deb-src\nURIs: d:\nSuites: y\n";
        let found: Vec<_> = parse_deb822(text).into_iter().map(|s| (s.uri, s.suite)).collect();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(found, [pair("a:", "one"), pair("a:", "two"), pair("b:", "one"), pair("b:", "two")]);
    }
}
