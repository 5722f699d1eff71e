//! A type's name that is known beyond the folder of its file stands for one type in the house.
//!
//! Who reads `Progress` somewhere is to know which one that is, without looking at the imports. A name that only its own
//! file says, or the few files of a small folder, says enough there and may stand for something else elsewhere.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Context as _;

use crate::Root;
use crate::arrows::{self, NamedType, Types};

/// Files in a folder whose names need not be known beyond it, at most, those of folders below it included.
const SMALL_FOLDER: usize = 10;

/// Names that stand for several types all the same, and why.
const SAID_AGAIN: &[(&str, &str)] = &[];

/// The folder of a file, as in `storage/src/lookup`.
fn folder(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// The folder of the modules below a file: `a/src/b` of `a/src/b.rs` and of `a/src/b/mod.rs`.
fn below(file: &str) -> &str {
    let path = file.strip_suffix(".rs").unwrap_or(file);
    path.strip_suffix("/mod").unwrap_or(path)
}

fn is_in(file: &str, folder: &str) -> bool {
    file.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// The types whose names do not stay at home: in their file, in those below it, or in a small folder and the face of it.
fn known_elsewhere(all: &Types) -> Vec<&NamedType> {
    let goes_out = |named: &&NamedType| {
        let folder = folder(&named.file);
        let in_folder = all.files.iter().filter(|file| is_in(file, folder)).count();
        let is_small = !folder.ends_with("/src") && in_folder <= SMALL_FOLDER;
        let faces = [format!("{folder}.rs"), format!("{folder}/mod.rs")];
        named.named_by.iter().any(|file| {
            let near = is_small && (is_in(file, folder) || faces.contains(file));
            !near && !is_in(file, below(&named.file))
        })
    };
    all.types.iter().filter(goes_out).collect()
}

#[test]
fn a_name_that_is_known_beyond_its_folder_stands_for_one_type() -> anyhow::Result<()> {
    let host = crate::root().join("host");
    let all = arrows::types(&host, &crate::roots()?)?;
    let mut again: BTreeMap<&str, Vec<&NamedType>> = BTreeMap::new();
    for named in known_elsewhere(&all) {
        again.entry(&named.name).or_default().push(named);
    }
    assert!(again.len() > 500, "only {} names are known elsewhere", again.len());
    again.retain(|_, types| types.len() > 1);
    let mut wrong = String::new();
    for (name, why) in SAID_AGAIN {
        assert!(!why.is_empty(), "`{name}` needs a reason");
        if again.remove(name).is_none() {
            wrong += &format!("\n`{name}` stands for one type now, take it off the list");
        }
    }
    for (name, types) in again {
        wrong += &format!("\n`{name}` stands for {} types:", types.len());
        for NamedType { file, named_by, .. } in types {
            wrong += &format!("\n  of {file}, named by {}", named_by.iter().cloned().collect::<Vec<_>>().join(", "));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    Ok(())
}

/// Two libraries and a program, with a name for each way to be known elsewhere, or not to be.
#[test]
fn a_name_stays_at_home_in_its_file_below_it_and_in_a_small_folder() -> anyhow::Result<()> {
    let host = tempfile::tempdir()?;
    let many: String = (0..SMALL_FOLDER).map(|number| format!("mod m{number}; ")).collect();
    let mut files = vec![
        (
            "a/src/lib.rs",
            "pub mod deep; mod small; mod large; mod face; pub use deep::Shown; pub struct Own;".to_owned(),
        ),
        ("a/src/deep.rs", "mod below; pub struct Shown; struct Own; pub(crate) struct Below;".to_owned()),
        ("a/src/deep/below.rs", "use super::Below;".to_owned()),
        ("a/src/small/mod.rs", "mod one; mod two; fn f(_: one::Small) {}".to_owned()),
        ("a/src/small/one.rs", "pub(super) struct Small; pub(crate) trait Told {}".to_owned()),
        ("a/src/small/two.rs", "use super::one::Small; use super::one::Told;".to_owned()),
        ("a/src/large/mod.rs", format!("{many} mod one; mod two;")),
        ("a/src/large/one.rs", "pub(super) enum Large {}".to_owned()),
        ("a/src/large/two.rs", "use super::one::Large as Other; use crate::small::one::Told;".to_owned()),
        ("a/src/face.rs", "mod one; use one::Small; struct Below; struct Told;".to_owned()),
        ("a/src/face/one.rs", "pub(super) struct Small;".to_owned()),
        ("b/src/lib.rs", "use vouch_a::{Own, deep}; mod far; fn f(_: deep::Shown) {}".to_owned()),
        ("b/src/far.rs", "use vouch_a::Shown; #[cfg(test)] use vouch_a::deep::Below;".to_owned()),
    ];
    let empty: Vec<String> = (0..SMALL_FOLDER).map(|number| format!("a/src/large/m{number}.rs")).collect();
    files.extend(empty.iter().map(|file| (file.as_str(), String::new())));
    for (file, text) in files {
        let path = host.path().join(file);
        fs::create_dir_all(path.parent().context("a file lies in a folder")?)?;
        fs::write(path, text)?;
    }
    let root = |package: &str, path: &str| {
        let (package, path) = (package.to_owned(), host.path().join(path));
        Root { package, is_library: true, path }
    };
    let all = arrows::types(host.path(), &[root("vouch-a", "a/src/lib.rs"), root("vouch-b", "b/src/lib.rs")])?;
    let known: Vec<String> =
        known_elsewhere(&all).iter().map(|named| format!("{} {}", named.file, named.name)).collect();
    assert_eq!(
        known,
        [
            // By another crate: an import, and a path through a re-export.
            "a/src/lib.rs Own",
            "a/src/deep.rs Shown",
            // By another folder.
            "a/src/small/one.rs Told",
            // By its own folder, which is not small.
            "a/src/large/one.rs Large",
        ]
    );
    Ok(())
}
