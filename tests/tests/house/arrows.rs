//! Which files name each other, and which types they name.
//!
//! The modules of a crate are read with a parser, and each path in shipped code is followed, through imports and
//! re-exports, to the file that declares what it names: an arrow leads from the file with the path to that one. What is
//! behind `cfg(test)` is not read. A path to a module is no arrow, the paths through it are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::Root;
use crate::names::{self, Names};

/// A path as it is written, one string for each segment.
pub(crate) type Segments = Vec<String>;

/// The arrows of a crate: from a file to a file, both relative to the crate's `src`, with the paths that draw them.
pub(crate) type Arrows = BTreeMap<(String, String), BTreeSet<String>>;

/// A module with what is declared in it and what it names.
struct Module {
    file: usize,
    /// The root of its crate.
    root: usize,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    names: Names,
}

/// The types of crates. Files are told relative to the folder of these.
pub(crate) struct Types {
    /// All files.
    pub(crate) files: Vec<String>,
    pub(crate) types: Vec<NamedType>,
}

/// A type, and who names it.
pub(crate) struct NamedType {
    pub(crate) name: String,
    /// The file that declares it.
    pub(crate) file: String,
    /// Other files that import it, or name it by a path.
    pub(crate) named_by: BTreeSet<String>,
}

/// What a path leads to.
#[derive(Clone, PartialEq, Eq)]
enum Target {
    Module(usize),
    /// Something of this name that is declared in this module.
    Item(usize, String),
    /// Another crate, or what only tests have.
    Outside,
}

/// The modules of crates, of each its root before the others.
struct Modules {
    /// The names of files are relative to this folder.
    folder: PathBuf,
    files: Vec<String>,
    modules: Vec<Module>,
    /// The roots of those that others may name, by the name that a path calls them by.
    libraries: BTreeMap<String, usize>,
}

/// The arrows between the files of the crate whose root is this file (`lib.rs` or `main.rs`).
pub(crate) fn of(root: &Path) -> anyhow::Result<Arrows> {
    let source = root.parent().context("the root of a crate lies in a folder")?;
    let mut modules = Modules::below(source);
    modules.read_root(root)?;
    Ok(modules.arrows())
}

/// The types that the crates with these roots declare, all of them below `folder`.
pub(crate) fn types(folder: &Path, roots: &[Root]) -> anyhow::Result<Types> {
    let mut modules = Modules::below(folder);
    for root in roots {
        let read = modules.read_root(&root.path)?;
        if root.is_library {
            modules.libraries.insert(root.package.replace('-', "_"), read);
        }
    }
    let types = modules.types();
    Ok(Types { files: modules.files, types })
}

impl Modules {
    fn below(folder: &Path) -> Self {
        let (files, modules, libraries) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { folder: folder.to_owned(), files, modules, libraries }
    }

    /// Reads a crate, and says which module is its root.
    fn read_root(&mut self, path: &Path) -> anyhow::Result<usize> {
        let source = path.parent().context("the root of a crate lies in a folder")?;
        self.read_file(path, source, None)
    }

    /// Reads the module that is this file, whose children lie in `folder`.
    fn read_file(&mut self, path: &Path, folder: &Path, parent: Option<usize>) -> anyhow::Result<usize> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let parsed = syn::parse_file(&text).with_context(|| path.display().to_string())?;
        self.files.push(path.strip_prefix(&self.folder)?.display().to_string());
        self.read_module(&parsed.items, self.files.len() - 1, folder, parent)
    }

    fn read_module(
        &mut self,
        items: &[syn::Item],
        file: usize,
        folder: &Path,
        parent: Option<usize>,
    ) -> anyhow::Result<usize> {
        let index = self.modules.len();
        let names = Names::of(items);
        let root = parent.map_or(index, |parent| self.modules[parent].root);
        self.modules.push(Module { file, root, parent, children: BTreeMap::new(), names });
        for item in items {
            let syn::Item::Mod(child) = item else { continue };
            if names::only_for_tests(&child.attrs) {
                continue;
            }
            let name = child.ident.to_string();
            let below = folder.join(&name);
            let child = match &child.content {
                Some((_, items)) => self.read_module(items, file, &below, Some(index))?,
                None => {
                    let beside = folder.join(format!("{name}.rs"));
                    let path = if beside.exists() { beside } else { below.join("mod.rs") };
                    self.read_file(&path, &below, Some(index))?
                }
            };
            self.modules[index].children.insert(name, child);
        }
        Ok(index)
    }

    /// The paths that a module imports or writes, but for those to all names of a module.
    fn paths(module: &Module) -> impl Iterator<Item = &Segments> {
        module.names.paths.iter().chain(module.names.imports.values().flatten())
    }

    fn types(&self) -> Vec<NamedType> {
        let mut named_by: BTreeMap<(usize, String), BTreeSet<usize>> = BTreeMap::new();
        for (index, module) in self.modules.iter().enumerate() {
            named_by.extend(module.names.types.iter().map(|name| ((index, name.clone()), BTreeSet::new())));
        }
        for (index, module) in self.modules.iter().enumerate() {
            for path in Self::paths(module) {
                if let Some(Target::Item(target, name)) = self.follow(index, path, &mut BTreeSet::new())
                    && let Some(files) = named_by.get_mut(&(target, name))
                {
                    files.insert(module.file);
                }
            }
        }
        let named = named_by.into_iter().map(|((module, name), files)| {
            let file = self.modules[module].file;
            let others = files.into_iter().filter(|other| *other != file);
            let named_by = others.map(|other| self.files[other].clone()).collect();
            NamedType { name, file: self.files[file].clone(), named_by }
        });
        named.collect()
    }

    fn arrows(&self) -> Arrows {
        let mut arrows = Arrows::new();
        for (index, module) in self.modules.iter().enumerate() {
            for path in Self::paths(module) {
                if let Some(Target::Item(target, _)) = self.follow(index, path, &mut BTreeSet::new()) {
                    self.draw(index, target, path, &mut arrows);
                }
            }
            for path in &module.names.globs {
                if let Some(Target::Module(target) | Target::Item(target, _)) =
                    self.follow(index, path, &mut BTreeSet::new())
                {
                    self.draw(index, target, path, &mut arrows);
                }
            }
        }
        arrows
    }

    /// Notes an arrow, unless it stays in the file or leads to the face of the file's own folder: that one declares
    /// the module, so it names it anyway.
    fn draw(&self, from: usize, to: usize, path: &[String], arrows: &mut Arrows) {
        let (file, target) = (self.modules[from].file, self.modules[to].file);
        if file != target && self.face(from) != Some(target) {
            let between = (self.files[file].clone(), self.files[target].clone());
            arrows.entry(between).or_default().insert(path.join("::"));
        }
    }

    /// The file that declares the file of this module.
    fn face(&self, module: usize) -> Option<usize> {
        let mut at = module;
        while self.modules[at].file == self.modules[module].file {
            at = self.modules[at].parent?;
        }
        Some(self.modules[at].file)
    }

    /// What a path in this module leads to; `None` for what no module of the crate declares.
    fn follow(&self, from: usize, path: &[String], seen: &mut BTreeSet<(usize, String)>) -> Option<Target> {
        let (mut at, mut rest) = match path.split_first()? {
            (first, rest) if first == "crate" => (self.modules[from].root, rest),
            (first, rest) if first == "self" => (from, rest),
            (first, rest) if first == "super" => (self.modules[from].parent?, rest),
            (first, rest) => match self.declared(from, first, !rest.is_empty(), seen) {
                Some(Target::Module(module)) => (module, rest),
                Some(found) => return Some(found),
                None => (*self.libraries.get(first)?, rest),
            },
        };
        while let Some((segment, behind)) = rest.split_first() {
            rest = behind;
            if segment == "super" {
                at = self.modules[at].parent?;
                continue;
            }
            match self.declared(at, segment, !rest.is_empty(), seen) {
                Some(Target::Module(module)) => at = module,
                Some(found) => return Some(found),
                // The compiler found it, so a macro made it.
                None => return Some(Target::Item(at, segment.clone())),
            }
        }
        Some(Target::Module(at))
    }

    /// What a name means in this module: as the beginning of a longer path a module goes before an item of its name.
    fn declared(
        &self,
        module: usize,
        name: &str,
        begins_path: bool,
        seen: &mut BTreeSet<(usize, String)>,
    ) -> Option<Target> {
        let Module { children, names, .. } = &self.modules[module];
        let child = children.get(name).map(|child| Target::Module(*child));
        if begins_path && child.is_some() {
            return child;
        }
        if names.items.contains(name) {
            return Some(Target::Item(module, name.to_owned()));
        }
        if names.only_for_tests.contains(name) {
            return Some(Target::Outside);
        }
        // An import of a name as itself, from another crate or in a circle of globs.
        if !seen.insert((module, name.to_owned())) {
            return None;
        }
        if let Some(paths) = names.imports.get(name) {
            let found = paths.iter().find_map(|path| self.follow(module, path, seen));
            return Some(child.or(found).unwrap_or(Target::Outside));
        }
        child.or_else(|| {
            names.globs.iter().find_map(|path| match self.follow(module, path, seen)? {
                Target::Module(other) => self.declared(other, name, begins_path, seen),
                _ => None,
            })
        })
    }
}

/// The circles among arrows: sets of files of which each leads to each other one.
pub(crate) fn circles(arrows: &Arrows) -> BTreeSet<BTreeSet<String>> {
    let mut next: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (from, to) in arrows.keys() {
        next.entry(from).or_default().insert(to);
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> = next.keys().map(|from| (*from, reach(&next, from))).collect();
    let leads = |from: &str, to: &str| reached.get(from).is_some_and(|reached| reached.contains(to));
    reached
        .keys()
        .filter(|file| leads(file, file))
        .map(|file| reached[file].iter().filter(|other| leads(other, file)).map(|file| (*file).to_owned()).collect())
        .collect()
}

fn reach<'a>(next: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &'a str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(file) = open.pop() {
        open.extend(next.get(file).into_iter().flatten().filter(|file| reached.insert(**file)));
    }
    reached
}
