//! A look at a component before it is compiled: what would cost more than it may is refused by name.
//!
//! The compiler's memory and time grow with more than the size of the file: a block of two bytes may pass on a thousand values,
//! and eight bytes declare fifty thousand locals. So what the compiler will have to hold is counted here, in one pass over the
//! file that allocates next to nothing. What exports no interface that this version calls is not compiled either. The limits of the compiler's process (see `child`) bound what no count foresees.
//!
//! Each bound lies far above what tools make of large programs, interpreters of other languages included.

use wasmparser::{BlockType, ComponentType, CompositeInnerType, FunctionBody, Operator, Parser, Payload, TypeRef};

use crate::declared::{DeclaredConfig, SECTION};
use crate::inspect::worlds;
use crate::upload::UploadRefused;

/// Most components in one another.
pub(crate) const MAX_NESTED_COMPONENTS: usize = 8;
/// Most components in a file, the outermost included.
pub(crate) const MAX_COMPONENTS: usize = 64;
/// Most core modules in a file.
pub(crate) const MAX_MODULES: usize = 64;
/// Most entries in the sections of all components: types with what they list, aliases, instances, canonical functions …
pub(crate) const MAX_COMPONENT_ITEMS: usize = 50_000;
/// Most imports and exports of the component itself.
pub(crate) const MAX_INTERFACES: usize = 256;
/// Most bytes in the name of an import or an export of a component.
pub(crate) const MAX_INTERFACE_NAME: usize = 256;
/// Most types in all core modules.
pub(crate) const MAX_TYPES: usize = 50_000;
/// Most imports of all core modules, and most exports.
pub(crate) const MAX_LINKS: usize = 50_000;
/// Most globals, tables, memories and tags in all core modules.
pub(crate) const MAX_DEFINITIONS: usize = 50_000;
/// Most data and element segments in all core modules.
pub(crate) const MAX_SEGMENTS: usize = 50_000;
/// Most functions in all core modules: so many of some thirty operators compile within what the compiler's process may take, and
/// twice as many of none do not.
pub(crate) const MAX_FUNCTIONS: usize = 100_000;
/// Most bytes in the body of one function: time grows with its square, 1 MiB takes 40 s. The interpreter in components that are made
/// from Python has one of 427 KB.
pub(crate) const MAX_FUNCTION_BYTES: usize = 448 << 10;
/// Most locals of one function, parameters not included.
pub(crate) const MAX_LOCALS: usize = 10_000;
/// Most blocks in one another in one function.
pub(crate) const MAX_NESTED_BLOCKS: usize = 4096;
/// Most work in one function, see [`Code::weight`]. Each takes up to 1 KiB of the compiler's memory while the function is
/// compiled.
pub(crate) const MAX_FUNCTION_WORK: usize = 500_000;
/// Most work in all functions.
pub(crate) const MAX_WORK: usize = 100_000_000;

/// Looks through a component. Returns what it says of its config, if it does.
pub(crate) fn survey(wasm: &[u8]) -> Result<Option<DeclaredConfig>, UploadRefused> {
    let counts = count(wasm)?;
    worlds(&counts.exported)?;
    Ok(counts.declared)
}

/// One pass over all of the component, which stops at the first bound that is broken: what it takes is bounded by the
/// length of the file and by the bounds.
fn count(wasm: &[u8]) -> Result<Counts, UploadRefused> {
    let mut counts = Counts::default();
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.map_err(|error| unreadable(&error))?;
        if let Payload::CustomSection(section) = &payload
            && section.name() == SECTION
        {
            counts.declare(section.data())?;
        }
        counts.see(payload)?;
    }
    Ok(counts)
}

/// It is no component, as far as it can be read.
fn unreadable(error: &wasmparser::Error) -> UploadRefused {
    UploadRefused::invalid_since(error.to_string())
}

/// Refuses what is larger than its bound, and names both.
fn at_most(what: &'static str, size: usize, limit: usize) -> Result<(), UploadRefused> {
    if size <= limit {
        return Ok(());
    }
    Err(UploadRefused::TooLarge { what: what.into(), size: size.to_string(), limit: limit.to_string() })
}

/// What was seen so far, over all modules and components.
#[derive(Default)]
struct Counts {
    /// What encloses the place where the pass is; only modules have something in it.
    enclosing: Vec<Module>,
    components: usize,
    modules: usize,
    component_items: usize,
    interface_imports: usize,
    interface_exports: usize,
    /// Names of what the component itself exports.
    exported: Vec<String>,
    types: usize,
    imports: usize,
    exports: usize,
    definitions: usize,
    segments: usize,
    functions: usize,
    work: usize,
    declared: Option<DeclaredConfig>,
}

/// Parameters and results of a function.
#[derive(Clone, Copy, Default)]
struct Signature {
    params: usize,
    results: usize,
}

/// What the code of a module refers to. Types that are none of functions count as if they had no values: the engine does
/// not take them.
#[derive(Default)]
struct Module {
    types: Vec<Signature>,
    /// The type of each function, imported ones first.
    functions: Vec<u32>,
    imported: usize,
    /// Bodies seen so far.
    bodies: usize,
}

impl Module {
    /// The type with this index; one without values for what is none of a function.
    fn signature(&self, index: u32) -> Signature {
        self.types.get(index as usize).copied().unwrap_or_default()
    }

    /// Of the function whose body comes next.
    fn own(&self) -> Signature {
        self.callee(u32::try_from(self.imported + self.bodies).unwrap_or(u32::MAX))
    }

    /// The type of a function, imported ones first.
    fn callee(&self, function: u32) -> Signature {
        self.functions.get(function as usize).map_or_else(Signature::default, |index| self.signature(*index))
    }
}

/// Adds up over the whole file: many small modules cost as much as a large one.
fn add(sum: &mut usize, more: usize, what: &'static str, limit: usize) -> Result<(), UploadRefused> {
    *sum = sum.saturating_add(more);
    at_most(what, *sum, limit)
}

impl Counts {
    /// Takes what the component says of its config, which it may say once.
    fn declare(&mut self, section: &[u8]) -> Result<(), UploadRefused> {
        let declared = DeclaredConfig::parse(section).map_err(|reason| UploadRefused::Invalid { reason })?;
        if self.declared.replace(declared).is_some() {
            return Err(UploadRefused::Invalid { reason: format!("it has more than one section {SECTION}") });
        }
        Ok(())
    }

    /// Counts one piece of a module. What is of a component goes on to [`Self::see_component`].
    fn see(&mut self, payload: Payload<'_>) -> Result<(), UploadRefused> {
        match payload {
            Payload::Version { encoding, .. } => self.enter(encoding),
            Payload::End(_) => {
                self.enclosing.pop();
                Ok(())
            }
            Payload::TypeSection(types) => {
                for group in types {
                    for sub in group.map_err(|error| unreadable(&error))?.types() {
                        add(&mut self.types, 1, "number of types", MAX_TYPES)?;
                        let signature = match &sub.composite_type.inner {
                            CompositeInnerType::Func(ty) => {
                                Signature { params: ty.params().len(), results: ty.results().len() }
                            }
                            _ => Signature::default(),
                        };
                        self.module().types.push(signature);
                    }
                }
                Ok(())
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    add(&mut self.imports, 1, "number of imports of its modules", MAX_LINKS)?;
                    if let TypeRef::Func(ty) | TypeRef::FuncExact(ty) = import.map_err(|error| unreadable(&error))?.ty {
                        let module = self.module();
                        module.functions.push(ty);
                        module.imported += 1;
                    }
                }
                Ok(())
            }
            Payload::FunctionSection(functions) => {
                add(&mut self.functions, functions.count() as usize, "number of functions", MAX_FUNCTIONS)?;
                for ty in functions {
                    let ty = ty.map_err(|error| unreadable(&error))?;
                    self.module().functions.push(ty);
                }
                Ok(())
            }
            Payload::ExportSection(exports) => {
                add(&mut self.exports, exports.count() as usize, "number of exports of its modules", MAX_LINKS)
            }
            Payload::TableSection(section) => self.define(section.count()),
            Payload::MemorySection(section) => self.define(section.count()),
            Payload::GlobalSection(section) => self.define(section.count()),
            Payload::TagSection(section) => self.define(section.count()),
            Payload::ElementSection(section) => self.segment(section.count()),
            Payload::DataSection(section) => self.segment(section.count()),
            Payload::CodeSectionEntry(body) => self.function(&body),
            payload => self.see_component(payload),
        }
    }

    /// Counts one piece of a component. Only what the outermost one imports and exports is what a binding meets.
    fn see_component(&mut self, payload: Payload<'_>) -> Result<(), UploadRefused> {
        match payload {
            Payload::InstanceSection(section) => self.items(section.count()),
            Payload::CoreTypeSection(section) => self.items(section.count()),
            Payload::ComponentInstanceSection(section) => self.items(section.count()),
            Payload::ComponentAliasSection(section) => self.items(section.count()),
            Payload::ComponentCanonicalSection(section) => self.items(section.count()),
            Payload::ComponentTypeSection(section) => {
                for ty in section {
                    let listed = match ty.map_err(|error| unreadable(&error))? {
                        ComponentType::Component(listed) => listed.len(),
                        ComponentType::Instance(listed) => listed.len(),
                        _ => 0,
                    };
                    self.items(u32::try_from(listed).unwrap_or(u32::MAX).saturating_add(1))?;
                }
                Ok(())
            }
            Payload::ComponentImportSection(section) => {
                self.items(section.count())?;
                if self.enclosing.len() == 1 {
                    add(&mut self.interface_imports, section.count() as usize, "number of imports", MAX_INTERFACES)?;
                }
                for import in section {
                    name(import.map_err(|error| unreadable(&error))?.name.name)?;
                }
                Ok(())
            }
            Payload::ComponentExportSection(section) => {
                self.items(section.count())?;
                let is_outermost = self.enclosing.len() == 1;
                if is_outermost {
                    add(&mut self.interface_exports, section.count() as usize, "number of exports", MAX_INTERFACES)?;
                }
                for export in section {
                    let exported = export.map_err(|error| unreadable(&error))?.name.name;
                    name(exported)?;
                    if is_outermost {
                        self.exported.push(exported.to_owned());
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A module or a component begins, in the one where the pass is.
    fn enter(&mut self, encoding: wasmparser::Encoding) -> Result<(), UploadRefused> {
        self.enclosing.push(Module::default());
        match encoding {
            wasmparser::Encoding::Module => add(&mut self.modules, 1, "number of core modules", MAX_MODULES),
            wasmparser::Encoding::Component => {
                add(&mut self.components, 1, "number of components", MAX_COMPONENTS)?;
                at_most("nesting of components", self.enclosing.len(), MAX_NESTED_COMPONENTS)
            }
        }
    }

    /// The module where the pass is: sections of modules come after the head of one.
    fn module(&mut self) -> &mut Module {
        if self.enclosing.is_empty() {
            self.enclosing.push(Module::default());
        }
        self.enclosing.last_mut().expect("one was just pushed if there was none")
    }

    /// Entries of sections of components.
    fn items(&mut self, count: u32) -> Result<(), UploadRefused> {
        add(&mut self.component_items, count as usize, "number of component types and instances", MAX_COMPONENT_ITEMS)
    }

    /// What a module defines besides functions.
    fn define(&mut self, count: u32) -> Result<(), UploadRefused> {
        add(&mut self.definitions, count as usize, "number of globals, tables and memories", MAX_DEFINITIONS)
    }

    /// Data and element segments, each of which is copied when a guest is made.
    fn segment(&mut self, count: u32) -> Result<(), UploadRefused> {
        add(&mut self.segments, count as usize, "number of data and element segments", MAX_SEGMENTS)
    }

    /// The body of a function: its length, its locals, and the work that it means for the compiler.
    fn function(&mut self, body: &FunctionBody<'_>) -> Result<(), UploadRefused> {
        let range = body.range();
        at_most("longest function, in bytes,", range.end - range.start, MAX_FUNCTION_BYTES)?;
        let mut locals = 0_usize;
        for group in body.get_locals_reader().map_err(|error| unreadable(&error))? {
            let (count, _) = group.map_err(|error| unreadable(&error))?;
            add(&mut locals, count as usize, "number of locals of one function", MAX_LOCALS)?;
        }
        let module = self.module();
        let own = module.own();
        module.bodies += 1;
        let code = Code { module, blocks: vec![(own.results, false)], loops: 0 };
        let work = code.weigh(body, locals + own.params)?;
        add(&mut self.work, work, "work of all functions", MAX_WORK)
    }
}

/// Names are printed, compared and kept.
fn name(name: &str) -> Result<(), UploadRefused> {
    at_most("longest name of an import or export, in bytes,", name.len(), MAX_INTERFACE_NAME)
}

/// The walk through one function.
struct Code<'a> {
    module: &'a Module,
    /// The open blocks, the function itself first: what a branch to each passes on, and whether it is a loop.
    blocks: Vec<(usize, bool)>,
    loops: usize,
}

impl Code<'_> {
    /// Values that the compiler has to keep of a function: of each local, of each operator one and what it passes on.
    fn weigh(mut self, body: &FunctionBody<'_>, locals: usize) -> Result<usize, UploadRefused> {
        let mut work = locals;
        let mut operators = body.get_operators_reader().map_err(|error| unreadable(&error))?;
        while !operators.eof() {
            let operator = operators.read().map_err(|error| unreadable(&error))?;
            add(&mut work, self.weight(&operator), "work of one function", MAX_FUNCTION_WORK)?;
            at_most("nesting of blocks", self.blocks.len().saturating_sub(1), MAX_NESTED_BLOCKS)?;
        }
        Ok(work)
    }

    /// One, and what the operator passes on: a block and a call their parameters and results, a branch what its target takes,
    /// once for each target. A local is passed on by every loop around, since each may come round with another value.
    fn weight(&mut self, operator: &Operator<'_>) -> usize {
        let passed = match operator {
            Operator::Block { blockty } | Operator::If { blockty } => self.open(*blockty, false),
            Operator::Loop { blockty } => self.open(*blockty, true),
            Operator::TryTable { try_table } => self.open(try_table.ty, false).saturating_add(try_table.catches.len()),
            Operator::Else => 0,
            Operator::End => {
                if let Some((_, true)) = self.blocks.pop() {
                    self.loops -= 1;
                }
                0
            }
            Operator::Br { relative_depth } | Operator::BrIf { relative_depth } => self.passed_to(*relative_depth),
            Operator::Return => self.blocks.first().map_or(0, |(results, _)| *results),
            Operator::BrTable { targets } => {
                (targets.len() as usize + 1).saturating_mul(1 + self.passed_to(targets.default()))
            }
            Operator::Call { function_index } | Operator::ReturnCall { function_index } => {
                let callee = self.module.callee(*function_index);
                callee.params + callee.results
            }
            Operator::CallIndirect { type_index, .. }
            | Operator::ReturnCallIndirect { type_index, .. }
            | Operator::CallRef { type_index }
            | Operator::ReturnCallRef { type_index } => {
                let callee = self.module.signature(*type_index);
                callee.params + callee.results
            }
            Operator::LocalGet { .. } | Operator::LocalSet { .. } | Operator::LocalTee { .. } => self.loops,
            _ => 0,
        };
        passed.saturating_add(1)
    }

    /// A block begins; what it takes and gives.
    fn open(&mut self, ty: BlockType, is_loop: bool) -> usize {
        let Signature { params, results } = match ty {
            BlockType::Empty => Signature::default(),
            BlockType::Type(_) => Signature { params: 0, results: 1 },
            BlockType::FuncType(index) => self.module.signature(index),
        };
        self.blocks.push((if is_loop { params } else { results }, is_loop));
        self.loops += usize::from(is_loop);
        params + results
    }

    /// What a branch to the block at this depth passes on; nothing for one that is not there, which the engine refuses.
    fn passed_to(&self, relative_depth: u32) -> usize {
        let index = self.blocks.len().checked_sub(1 + relative_depth as usize);
        index.map_or(0, |index| self.blocks[index].0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(text: &str) -> Result<(), UploadRefused> {
        count(&wat::parse_str(text).unwrap()).map(drop)
    }

    /// A module in a component.
    fn module(fields: &str) -> String {
        format!("(component (core module {fields}))")
    }

    /// A function that calls one with 999 parameters so many times, and does nothing so many times.
    fn calls(calls: usize, nothings: usize) -> String {
        format!("(func {} {})", "call $wide ".repeat(calls), "nop ".repeat(nothings))
    }

    fn wide() -> String {
        format!("(func $wide (import \"a\" \"b\") (param{}))", " i32".repeat(999))
    }

    fn numbered(count: usize, entry: impl Fn(usize) -> String) -> String {
        (0..count).map(entry).collect()
    }

    #[test]
    fn each_bound_holds_from_both_sides() {
        type Make = fn(usize) -> String;
        let cases: [(&str, usize, Make); 18] = [
            ("number of functions", MAX_FUNCTIONS, |n| module(&"(func)".repeat(n))),
            ("number of locals", MAX_LOCALS, |n| module(&format!("(func (local{}))", " i32".repeat(n)))),
            ("nesting of blocks", MAX_NESTED_BLOCKS, |n| {
                module(&format!("(func {} {})", "block ".repeat(n), "end ".repeat(n)))
            }),
            // A count of locals and an end are bytes of a function, too.
            ("longest function", MAX_FUNCTION_BYTES, |n| module(&format!("(func {})", "nop ".repeat(n - 2)))),
            // 499 calls of 1 000 each, the end, and what is left.
            ("work of one function", MAX_FUNCTION_WORK, |n| module(&(wide() + &calls(499, n - 499_001)))),
            ("work of all functions", MAX_WORK, |n| {
                let full = calls(499, 999).repeat(n / MAX_FUNCTION_WORK);
                module(&(wide() + &full + &"(func)".repeat(n % MAX_FUNCTION_WORK)))
            }),
            ("number of types", MAX_TYPES, |n| module(&"(type (func))".repeat(n))),
            ("number of imports of its modules", MAX_LINKS, |n| module(&"(import \"\" \"\" (global i32))".repeat(n))),
            ("number of exports of its modules", MAX_LINKS, |n| {
                module(&(String::from("(func)") + &numbered(n, |n| format!("(export \"{n}\" (func 0))"))))
            }),
            ("number of globals", MAX_DEFINITIONS, |n| module(&"(global i32 i32.const 0)".repeat(n))),
            ("number of data and element", MAX_SEGMENTS, |n| module(&"(data \"\")".repeat(n))),
            ("number of core modules", MAX_MODULES, |n| format!("(component {})", "(core module)".repeat(n))),
            ("number of components", MAX_COMPONENTS, |n| format!("(component {})", "(component)".repeat(n - 1))),
            ("nesting of components", MAX_NESTED_COMPONENTS, |n| "(component ".repeat(n) + &")".repeat(n)),
            ("number of component types", MAX_COMPONENT_ITEMS, |n| {
                format!("(component {})", "(type (func))".repeat(n))
            }),
            ("number of imports", MAX_INTERFACES, |n| {
                format!(
                    "(component (type $t (func)) {})",
                    numbered(n, |n| format!("(import \"a{n}\" (func (type $t)))"))
                )
            }),
            ("number of exports", MAX_INTERFACES, |n| {
                let exports = numbered(n, |n| format!("(export \"a{n}\" (func $f))"));
                format!("(component (import \"f\" (func $f)) {exports})")
            }),
            ("longest name", MAX_INTERFACE_NAME, |n| format!("(component (import \"{}\" (func)))", "a".repeat(n))),
        ];
        for (what, limit, make) in cases {
            assert_eq!(look(&make(limit)), Ok(()), "{what}");
            let refused = look(&make(limit + 1)).unwrap_err();
            let UploadRefused::TooLarge { what: named, limit: told, .. } = &refused else {
                panic!("{what}: {refused}")
            };
            assert!(named.contains(what), "{refused}");
            assert_eq!(*told, limit.to_string(), "{refused}");
        }
    }

    #[test]
    fn what_a_few_bytes_pass_on_is_counted() {
        let many = " i32".repeat(1000);
        let locals = format!("(local{})", " i32".repeat(1000));
        for (what, body) in [
            ("blocks", format!("(type $t (func (result{many}))) (func {})", "block (type $t) end ".repeat(2000))),
            (
                "branches",
                format!("(type $t (func (result{many}))) (func block (type $t) {} end)", "br 0 ".repeat(2000)),
            ),
            (
                "tables of branches",
                format!("(type $t (func (result{many}))) (func block (type $t) br_table{} end)", " 0".repeat(2000)),
            ),
            ("returns", format!("(func (result{many}) {})", "return ".repeat(2000))),
            ("branches out of the function", format!("(func (result{many}) {})", "br 0 ".repeat(2000))),
            (
                "indirect calls",
                format!("(type $t (func (param{many}))) (func {})", "call_indirect (type $t) ".repeat(2000)),
            ),
            (
                "locals in loops",
                format!(
                    "(func {locals} {} {} {})",
                    "loop ".repeat(2000),
                    "local.get 0 ".repeat(1000),
                    "end ".repeat(2000)
                ),
            ),
        ] {
            let wasm = wat::parse_str(module(&body)).unwrap();
            assert!(wasm.len() < 20_000, "{what}: {}", wasm.len());
            let refused = count(&wasm).err().unwrap();
            assert!(refused.to_string().contains("work of one function"), "{what}: {refused}");
        }
    }

    #[test]
    fn what_exports_no_interface_that_is_called_is_refused_before_it_is_compiled() {
        let export = |name: &str| format!("(component (instance $i) (export \"{name}\" (instance $i)))");
        let of = |text: &str| survey(&wat::parse_str(text).unwrap()).map(drop);
        for known in ["checkback", "checkback-batch", "consumer"] {
            assert_eq!(of(&export(&format!("vouch:plugin/{known}@0.1.0"))), Ok(()));
        }
        let inside = format!("(component {})", export("vouch:plugin/checkback@0.1.0"));
        for (text, exports) in [(inside, vec![]), (export("a:b/c@0.1.0"), vec!["a:b/c@0.1.0".to_owned()])] {
            assert_eq!(of(&text), Err(UploadRefused::NoKnownInterface { exports }), "{text}");
        }
    }

    #[test]
    fn what_ships_with_vouch_is_far_below_every_bound() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist/http-checkback.wasm");
        let wasm = std::fs::read(path).unwrap();
        survey(&wasm).unwrap();
        let counts = count(&wasm).unwrap();
        assert!(
            counts.work < MAX_WORK / 50 && counts.functions < MAX_FUNCTIONS / 20,
            "{} {}",
            counts.work,
            counts.functions
        );
    }
}
