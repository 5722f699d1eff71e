//! No files of a crate import each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::Context as _;

use crate::arrows::{self, Arrows};

/// The circles that are left, by crate. A circle may lose files, or fall into smaller ones; it gets no new ones, and
/// what is in none any more leaves this list.
const LEFT: &[(&str, &[&str])] = &[];

/// One line for each arrow within a circle, with a path that draws it.
fn told(circle: &BTreeSet<String>, arrows: &Arrows) -> String {
    arrows
        .iter()
        .filter(|((from, to), _)| circle.contains(from) && circle.contains(to))
        .map(|((from, to), paths)| {
            format!("\n  {from} -> {to}: {}", paths.iter().cloned().collect::<Vec<_>>().join(", "))
        })
        .collect()
}

#[test]
fn no_files_of_a_crate_import_each_other_in_a_circle() -> anyhow::Result<()> {
    let mut wrong = String::new();
    let mut listed: BTreeMap<&str, Vec<BTreeSet<&str>>> = BTreeMap::new();
    for (name, circle) in LEFT {
        listed.entry(name).or_default().push(circle.iter().copied().collect());
    }
    for crate::Root { package: name, path, .. } in crate::roots()? {
        let arrows = arrows::of(&path)?;
        let mut gone: BTreeSet<&str> = listed.get(name.as_str()).into_iter().flatten().flatten().copied().collect();
        for circle in arrows::circles(&arrows) {
            let files: BTreeSet<&str> = circle.iter().map(String::as_str).collect();
            gone.retain(|file| !files.contains(file));
            if !listed.get(name.as_str()).is_some_and(|listed| listed.iter().any(|listed| files.is_subset(listed))) {
                wrong += &format!("\n{name} has a circle of {files:?}:{}", told(&circle, &arrows));
            }
        }
        if !gone.is_empty() {
            wrong += &format!("\n{name}: {gone:?} are in no circle any more, take them off the list");
        }
        listed.remove(name.as_str());
    }
    assert!(listed.is_empty(), "the list names crates that are not in the workspace: {:?}", listed.keys());
    assert!(wrong.is_empty(), "{wrong}");
    Ok(())
}

/// A crate of its own with one arrow for each way to name something elsewhere.
#[test]
fn an_arrow_leads_to_the_file_that_declares_what_is_named() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    for (file, text) in [
        ("lib.rs", "mod a; mod b; mod c; mod made; pub use b::inner::Deep; pub struct Own; #[cfg(test)] mod testing;"),
        ("a.rs", "use crate::{Deep, b::{Face as Other, self}}; fn f() { b::call(); }"),
        (
            "b/mod.rs",
            "pub mod inner; pub mod later; mod beside; pub(crate) use beside::*; pub struct Face; fn f(_: crate::Own) {}",
        ),
        ("b/inner.rs", "use super::Face; use super::later::Later; pub struct Deep;"),
        ("b/later.rs", "pub struct Later; fn f() { println!(\"{}\", crate::c::told()); }"),
        (
            "b/beside.rs",
            "pub(crate) fn call() {} #[cfg(all(unix, any(test, feature = \"more\")))] mod tests { use crate::a; }",
        ),
        ("c.rs", "#[cfg(not(test))] fn f() -> crate::made::Made { if crate::testing::injected() {} } pub fn told() {}"),
        (
            "made.rs",
            "made! { struct Made } use std::fs; #[cfg(test)] use crate::c::told; fn f() { fs::read(); c::told(); }",
        ),
    ] {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().context("a file lies in a folder")?)?;
        fs::write(path, text)?;
    }
    let arrows = arrows::of(&folder.path().join("lib.rs"))?;
    let drawn: Vec<String> = arrows.keys().map(|(from, to)| format!("{from} -> {to}")).collect();
    assert_eq!(
        drawn,
        [
            // Through the re-export in the root, as another name, and through the module.
            "a.rs -> b/beside.rs",
            "a.rs -> b/inner.rs",
            "a.rs -> b/mod.rs",
            "b/inner.rs -> b/later.rs",
            // In what a macro is given.
            "b/later.rs -> c.rs",
            // All names of a module at once; what the root declares is no arrow from a file that it declares.
            "b/mod.rs -> b/beside.rs",
            // What a macro declares.
            "c.rs -> made.rs",
            "lib.rs -> b/inner.rs",
        ]
    );
    Ok(())
}

#[test]
fn a_circle_is_what_leads_back_to_itself_and_nothing_beside_it() {
    let arrows = [("a", "b"), ("b", "c"), ("c", "b"), ("c", "d"), ("e", "f"), ("f", "g"), ("g", "e")];
    let arrows: Arrows =
        arrows.into_iter().map(|(from, to)| ((from.to_owned(), to.to_owned()), BTreeSet::new())).collect();
    let found: Vec<Vec<String>> =
        arrows::circles(&arrows).into_iter().map(|circle| circle.into_iter().collect()).collect();
    assert_eq!(found, [vec!["b", "c"], vec!["e", "f", "g"]]);
}
