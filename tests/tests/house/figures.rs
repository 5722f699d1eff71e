//! The house in figures: how long files and functions are, how much of the source is documentation, how much is tested.
//!
//! **Source** is every line of the files below `src`, blank ones and comments included, without what only tests have:
//! files called `tests.rs` or `*_tests.rs`, folders called `tests`, and modules behind `cfg(test)`, whether they are
//! files of their own or stand at the end of one. **Tests** are all these, and the crate's folder `tests`. A **function**
//! is as long as from its `fn` to its closing brace, what is nested in it included. **Documentation** are the lines of
//! source that begin with `///` or `//!`. A **percentile** is the smallest length that so many percent do not exceed.

use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use proc_macro2::Span;
use syn::visit::{self, Visit};

use crate::names::only_for_tests;

/// The crates that are made of people's trades: here files, functions and tests have aims. Some are yet to come.
const TRADES: [&str; 4] = ["node", "shard", "storage", "leader"];

/// What each aim holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figure {
    /// Lines of a file that half of all do not exceed.
    MedianFile,
    /// Lines of a file that nine of ten do not exceed.
    LongFile,
    /// Lines of a function that 99 of 100 do not exceed.
    LongFunction,
    /// Documentation for each line of source.
    Documentation,
    /// Lines of tests for each line of source.
    Tests,
}

/// What does not reach its aim yet, and where it stands: it may only get nearer. Who moves it writes down the new figure;
/// what reaches its aim leaves the list.
const LEFT: &[(&str, Figure, f64)] = &[];

impl Figure {
    /// What the crate or the crates of this name are to reach, if they are to.
    fn aim(self, name: &str) -> Option<f64> {
        let trade = TRADES.contains(&name);
        match self {
            Self::MedianFile => (name == TOGETHER).then_some(110.0),
            Self::LongFile => trade.then_some(350.0),
            Self::LongFunction => trade.then_some(70.0),
            Self::Documentation => (name != TOGETHER).then_some(0.15),
            Self::Tests => {
                if trade {
                    Some(0.6)
                } else {
                    (name == "cli").then_some(0.4)
                }
            }
        }
    }

    /// Whether one figure is as good as another.
    fn reaches(self, figure: f64, aim: f64) -> bool {
        match self {
            Self::MedianFile | Self::LongFile | Self::LongFunction => figure <= aim,
            Self::Documentation | Self::Tests => figure >= aim,
        }
    }
}

/// The trades as one.
const TOGETHER: &str = "trades";

/// What was measured of a crate.
#[derive(Default)]
struct Measured {
    name: String,
    /// Lines of source of each file that has any.
    files: Vec<usize>,
    /// Lines of each function in the source.
    functions: Vec<usize>,
    documentation: usize,
    tests: usize,
}

impl Measured {
    /// Measures the crate in this folder.
    fn of(folder: &Path) -> anyhow::Result<Self> {
        let name = folder.file_name().context("a crate has a name")?.to_string_lossy().into_owned();
        let mut measured = Self { name, ..Self::default() };
        let (mut files, mut of_tests) = (Vec::new(), BTreeSet::new());
        super::rust_files(&folder.join("src"), &mut files)?;
        let mut read = Vec::new();
        for path in files {
            let file = SourceFile::read(path)?;
            of_tests.extend(file.children_of_tests());
            read.push(file);
        }
        for file in &read {
            measured.add(file, file.path.ancestors().any(|above| of_tests.contains(above)));
        }
        let mut suites = Vec::new();
        if folder.join("tests").exists() {
            super::rust_files(&folder.join("tests"), &mut suites)?;
        }
        for path in suites {
            measured.tests += fs::read_to_string(path)?.lines().count();
        }
        Ok(measured)
    }

    fn add(&mut self, file: &SourceFile, of_tests: bool) {
        let all = file.text.lines().count();
        if of_tests || is_called_tests(&file.path) {
            self.tests += all;
            return;
        }
        let shipped = |line: usize| !file.tests.iter().any(|tests| tests.contains(&line));
        let source: Vec<&str> =
            file.text.lines().enumerate().filter(|(line, _)| shipped(line + 1)).map(|(_, text)| text).collect();
        self.tests += all - source.len();
        self.documentation += source.iter().filter(|line| is_documentation(line)).count();
        self.files.push(source.len());
        self.functions.extend(file.functions.iter().filter(|lines| shipped(lines.start)).map(Range::len));
    }

    /// All of them as one.
    fn together<'a>(all: impl Iterator<Item = &'a Self>) -> Self {
        all.fold(Self { name: TOGETHER.to_owned(), ..Self::default() }, |mut sum, measured| {
            sum.files.extend(&measured.files);
            sum.functions.extend(&measured.functions);
            sum.documentation += measured.documentation;
            sum.tests += measured.tests;
            sum
        })
    }

    fn figure(&self, figure: Figure) -> f64 {
        let source: usize = self.files.iter().sum();
        match figure {
            Figure::MedianFile => percentile(&self.files, 50) as f64,
            Figure::LongFile => percentile(&self.files, 90) as f64,
            Figure::LongFunction => percentile(&self.functions, 99) as f64,
            Figure::Documentation => self.documentation as f64 / source as f64,
            Figure::Tests => self.tests as f64 / source as f64,
        }
    }

    /// What is wrong with a figure, by its aim and by the list.
    fn wrong(&self, figure: Figure) -> Option<String> {
        let (is, name) = (self.figure(figure), self.name.as_str());
        let aim = figure.aim(name)?;
        let left = LEFT.iter().find(|(listed, of, _)| (*listed, *of) == (name, figure)).map(|(_, _, left)| *left);
        match left {
            Some(_) if figure.reaches(is, aim) => {
                Some(format!("{name}: {figure:?} reaches its aim with {is:.3}, take it off the list"))
            }
            Some(left) if !figure.reaches(is, left) => {
                Some(format!("{name}: {figure:?} was {left} and is {is:.3}; it may only get nearer to {aim}"))
            }
            None if !figure.reaches(is, aim) => Some(format!("{name}: {figure:?} is {is:.3}, the aim is {aim}")),
            _ => None,
        }
    }
}

impl Display for Measured {
    fn fmt(&self, line: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            line,
            "{:10} {:7} {:7} {:7} {:7} {:9} {:11} {:6.1} % {:8.2}",
            self.name,
            self.files.iter().sum::<usize>(),
            self.files.len(),
            self.figure(Figure::MedianFile),
            self.figure(Figure::LongFile),
            self.functions.len(),
            self.figure(Figure::LongFunction),
            self.figure(Figure::Documentation) * 100.0,
            self.figure(Figure::Tests),
        )
    }
}

const HEADINGS: &str = "crate       source   files  median     p90 functions         p99     docs tests ÷ source";

/// The smallest of these that so many percent of them do not exceed.
fn percentile(of: &[usize], percent: usize) -> usize {
    let mut sorted = of.to_vec();
    sorted.sort_unstable();
    sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
}

fn is_called_tests(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    stem == "tests" || stem.ends_with("_tests") || path.components().any(|part| part.as_os_str() == "tests")
}

fn is_documentation(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("///") || line.starts_with("//!")
}

/// The lines from the first of something to its closing brace.
fn lines(first: Span, brace: &syn::token::Brace) -> Range<usize> {
    first.start().line..brace.span.close().end().line + 1
}

/// A file of a crate, and where in it is what. Lines count from 1.
struct SourceFile {
    path: PathBuf,
    text: String,
    /// Modules that only tests have, from their first attribute to their end.
    tests: Vec<Range<usize>>,
    /// Names of modules that only tests have, and that lie in files of their own.
    children_of_tests: Vec<String>,
    functions: Vec<Range<usize>>,
}

impl SourceFile {
    fn read(path: PathBuf) -> anyhow::Result<Self> {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let parsed = syn::parse_file(&text).with_context(|| path.display().to_string())?;
        let mut file = Self { path, text, tests: Vec::new(), children_of_tests: Vec::new(), functions: Vec::new() };
        file.visit_file(&parsed);
        Ok(file)
    }

    /// The files that only tests have as this one declares them, and the folders below those.
    fn children_of_tests(&self) -> Vec<PathBuf> {
        let is_face = self.path.file_stem().is_some_and(|stem| stem == "mod" || stem == "lib" || stem == "main");
        let below =
            if is_face { self.path.parent().unwrap_or(&self.path).to_owned() } else { self.path.with_extension("") };
        self.children_of_tests.iter().flat_map(|name| [below.join(name), below.join(format!("{name}.rs"))]).collect()
    }

    fn function(&mut self, signature: &syn::Signature, body: &syn::Block) {
        self.functions.push(lines(signature.fn_token.span, &body.brace_token));
    }
}

impl<'ast> Visit<'ast> for SourceFile {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if only_for_tests(&module.attrs) {
            match &module.content {
                Some((brace, _)) => {
                    let first = module.attrs.first().map_or(module.mod_token.span, |attr| attr.pound_token.span);
                    self.tests.push(lines(first, brace));
                }
                None => self.children_of_tests.push(module.ident.to_string()),
            }
        }
        visit::visit_item_mod(self, module);
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.function(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.function(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.function(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

#[test]
fn files_functions_documentation_and_tests_reach_their_aims() -> anyhow::Result<()> {
    let mut folders: Vec<PathBuf> =
        fs::read_dir(super::root().join("host"))?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    folders.retain(|folder| folder.join("Cargo.toml").exists());
    folders.sort();
    // Reading them takes most of a second, so each has a thread.
    let mut all: Vec<Measured> = std::thread::scope(|scope| {
        let threads: Vec<_> = folders.iter().map(|folder| scope.spawn(|| Measured::of(folder))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no parser panics")).collect::<anyhow::Result<_>>()
    })?;
    all.push(Measured::together(all.iter().filter(|measured| TRADES.contains(&measured.name.as_str()))));

    println!("{HEADINGS}");
    let (mut wrong, mut listed) = (String::new(), LEFT.to_vec());
    for measured in &all {
        println!("{measured}");
        for figure in [Figure::MedianFile, Figure::LongFile, Figure::LongFunction, Figure::Documentation, Figure::Tests]
        {
            wrong.extend(measured.wrong(figure).map(|wrong| format!("\n{wrong}")));
            listed
                .retain(|(name, of, _)| (*name, *of) != (measured.name.as_str(), figure) || figure.aim(name).is_none());
        }
    }
    println!(
        "source: lines of all files below src, without tests; median and p90: lines of a file; p99: lines of a function; \
         docs: lines of documentation in the source; tests: in src and in the folder tests; {TOGETHER}: {TRADES:?}, as \
         far as there are such"
    );
    for (name, figure, _) in listed {
        wrong += &format!("\n{name}: {figure:?} is listed, and has no aim or is not in the workspace");
    }
    assert!(wrong.is_empty(), "{wrong}");
    Ok(())
}

/// A crate with a line of each kind.
#[test]
fn tests_are_told_from_source_wherever_they_stand() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    for (file, text) in [
        ("src/lib.rs", "//! Face.\n\n#[cfg(test)]\nmod only;\nmod a;\n"),
        ("src/only/mod.rs", "mod deeper;\n"),
        ("src/only/deeper.rs", "fn long() {\n\n\n}\n"),
        (
            "src/a.rs",
            "/// Two.\npub fn two() {\n}\n\n#[cfg(test)]\nmod tests {\n    /// One.\n    fn one() {\n\n\n\n    }\n}\n",
        ),
        ("src/a/b_tests.rs", "\n\n\n"),
        ("src/tests/c.rs", "\n"),
        ("tests/whole.rs", "/// Outside.\nfn outside() {\n}\n"),
    ] {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().context("a file lies in a folder")?)?;
        fs::write(path, text)?;
    }
    let mut measured = Measured::of(folder.path())?;
    measured.files.sort_unstable();
    assert_eq!((measured.files, measured.functions, measured.documentation), (vec![4, 5], vec![2], 2));
    assert_eq!(measured.tests, 1 + 4 + 9 + 3 + 1 + 3);
    Ok(())
}

#[test]
fn a_percentile_is_one_of_the_lengths() {
    let lengths: Vec<usize> = (1..=10).rev().collect();
    assert_eq!([50, 90, 99, 100].map(|percent| percentile(&lengths, percent)), [5, 9, 10, 10]);
    assert_eq!(percentile(&[], 50), 0);
}
