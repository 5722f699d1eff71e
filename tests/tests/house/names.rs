//! What a module declares, imports and names by path, outside of what only tests see.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use crate::arrows::Segments;

/// The names in one module; those of modules that are written within it belong to them.
#[derive(Default)]
pub(crate) struct Names {
    /// What it declares.
    pub(crate) items: BTreeSet<String>,
    /// Structs, enums, traits and aliases among it.
    pub(crate) types: BTreeSet<String>,
    /// What it declares for tests only: a path to it, behind `cfg(test)` as well, leads nowhere.
    pub(crate) only_for_tests: BTreeSet<String>,
    /// By the name that the import gives; a name may stand for a type and a function of two origins.
    pub(crate) imports: BTreeMap<String, Vec<Segments>>,
    /// The modules all of whose names it imports.
    pub(crate) globs: Vec<Segments>,
    /// Every path of two segments or more outside of imports.
    pub(crate) paths: BTreeSet<Segments>,
}

impl Names {
    pub(crate) fn of(items: &[syn::Item]) -> Self {
        let mut names = Self::default();
        for item in items {
            if let Some(name) = declared_name(item) {
                let tests = only_for_tests(attributes(item));
                if tests {
                    names.only_for_tests.insert(name);
                } else if !matches!(item, syn::Item::Mod(_)) {
                    if is_type(item) {
                        names.types.insert(name.clone());
                    }
                    names.items.insert(name);
                }
            }
            names.visit_item(item);
        }
        names
    }

    fn import(&mut self, before: &Segments, tree: &syn::UseTree) {
        let with = |name: &syn::Ident| {
            let mut path = before.clone();
            if name != "self" || path.is_empty() {
                path.push(name.to_string());
            }
            path
        };
        match tree {
            syn::UseTree::Path(path) => self.import(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => {
                let path = with(&name.ident);
                self.imports.entry(path.last().cloned().unwrap_or_default()).or_default().push(path);
            }
            syn::UseTree::Rename(name) => {
                self.imports.entry(name.rename.to_string()).or_default().push(with(&name.ident));
            }
            syn::UseTree::Glob(_) => self.globs.push(before.clone()),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.import(before, tree)),
        }
    }

    fn path(&mut self, path: Segments) {
        if path.len() > 1 {
            self.paths.insert(path);
        }
    }

    /// The paths in what a macro is given, of which no more is known than its tokens.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path = Segments::new();
        // How many colons came since the last name; a name after anything else begins a path.
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.path(std::mem::take(&mut path));
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.path(std::mem::take(&mut path));
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.path(path);
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !only_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    /// A module within this one is a module of its own.
    fn visit_item_mod(&mut self, _: &'ast syn::ItemMod) {}

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if item.leading_colon.is_none() {
            self.import(&Segments::new(), &item.tree);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !only_for_tests(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if !only_for_tests(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            self.path(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        self.tokens(called.tokens.clone());
        visit::visit_macro(self, called);
    }
}

/// Whether `cfg` leaves what bears these attributes out of what is shipped.
pub(crate) fn only_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).any(|attribute| {
        let mut asks_for_test = false;
        // An error is a condition of a form that is none of ours.
        let _ = attribute.parse_nested_meta(|meta| asks(&meta, &mut asks_for_test));
        asks_for_test
    })
}

fn asks(meta: &syn::meta::ParseNestedMeta<'_>, asks_for_test: &mut bool) -> syn::Result<()> {
    if meta.path.is_ident("test") {
        *asks_for_test = true;
    } else if meta.path.is_ident("any") || meta.path.is_ident("all") {
        meta.parse_nested_meta(|meta| asks(&meta, asks_for_test))?;
    } else if meta.path.is_ident("not") {
        meta.parse_nested_meta(|meta| asks(&meta, &mut false))?;
    } else if meta.input.peek(syn::Token![=]) {
        meta.value()?.parse::<syn::Lit>()?;
    }
    Ok(())
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn is_type(item: &syn::Item) -> bool {
    matches!(item, syn::Item::Enum(_) | syn::Item::Struct(_) | syn::Item::Trait(_) | syn::Item::Type(_))
}

fn declared_name(item: &syn::Item) -> Option<String> {
    let name = match item {
        syn::Item::Const(item) => &item.ident,
        syn::Item::Enum(item) => &item.ident,
        syn::Item::Fn(item) => &item.sig.ident,
        syn::Item::Macro(item) => item.ident.as_ref()?,
        syn::Item::Mod(item) => &item.ident,
        syn::Item::Static(item) => &item.ident,
        syn::Item::Struct(item) => &item.ident,
        syn::Item::Trait(item) => &item.ident,
        syn::Item::Type(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}
