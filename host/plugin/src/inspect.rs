//! What an uploaded file is, and whether it can be run (ruling 22).

use std::{borrow::Cow, time::Duration};

use serde::{Deserialize, Serialize, Serializer};
use wasmtime::component::{Component, Linker};

use crate::{
    bindings::CheckbackHostPre, call::CallState, compile::CompileError, declared::Declared, error_text::describe,
    quantity::ByteSize,
};

/// What a component exports, and so what it can be bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum World {
    /// Settles open transactions one by one.
    Checkback,
    /// Settles them many at a time. Recognised, not yet run.
    CheckbackBatch,
    /// Consumes messages. Recognised, not yet run.
    Consumer,
}

impl World {
    /// The interface's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Checkback => "checkback",
            Self::CheckbackBatch => "checkback-batch",
            Self::Consumer => "consumer",
        }
    }
}

/// The answer to an upload: what the component is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UploadVerdict {
    /// `sha256:` and 64 hexadecimal digits: the component's name for good.
    pub digest: String,
    /// What it exports of `vouch:plugin`.
    pub worlds: Vec<World>,
    /// Imports that a binding has to grant before they do anything.
    pub imports_wanted: Vec<String>,
    /// All exports, as the file names them.
    pub exports: Vec<String>,
    /// What it reads of a binding's config, if it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Declared>,
    /// Bytes of the file.
    pub size: u64,
    /// How long it took to compile, or to find the compiled code.
    #[serde(rename = "compile_ms", serialize_with = "as_ms")]
    pub compile_time: Duration,
}

fn as_ms<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// Why an uploaded file is refused. The sentence is for the author of the plugin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refused {
    /// Not a WebAssembly component.
    #[error("this is not a WebAssembly component: {found}")]
    NotAComponent {
        /// What it is instead.
        found: String,
    },
    /// Exports nothing that the broker could call.
    #[error(
        "the component exports no interface that Vouch knows (it exports {}): export vouch:plugin/checkback@0.1.0",
        list(.exports)
    )]
    NoKnownInterface {
        /// What it exports.
        exports: Vec<String>,
    },
    /// A known world that this version does not run.
    #[error("the component is a `{}` plugin: this version of the broker runs `checkback` plugins only", .world.name())]
    NotYetRun {
        /// The world.
        world: World,
    },
    /// Wants something that no binding can grant.
    #[error(
        "the component imports {name}, which no binding can grant: build it without (see the manual for what can be imported)"
    )]
    ImportNotGrantable {
        /// The import as the file names it.
        name: String,
    },
    /// Over a limit.
    #[error("the component's {what} is {size}, over the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: Cow<'static, str>,
        /// How large it is.
        size: String,
        /// How large it may be.
        limit: String,
    },
    /// Compiling it takes more than a compilation may take.
    #[error("compiling the component takes more than {limit} of {what}: make it smaller, or its largest functions")]
    TooCostly {
        /// What it takes too much of.
        what: Cow<'static, str>,
        /// How much it may take.
        limit: String,
    },
    /// Looks like a component, and is broken or does not fit the interfaces it names.
    #[error("the component cannot be used: {reason}")]
    Invalid {
        /// What the engine says.
        reason: String,
    },
}

impl Refused {
    /// A stable word for error URNs, metrics and tests.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotAComponent { .. } => "not-a-component",
            Self::NoKnownInterface { .. } => "no-known-interface",
            Self::NotYetRun { .. } => "not-yet-run",
            Self::ImportNotGrantable { .. } => "import-not-grantable",
            Self::TooLarge { .. } => "too-large",
            Self::TooCostly { .. } => "too-costly",
            Self::Invalid { .. } => "invalid",
        }
    }

    pub(crate) fn invalid(error: &wasmtime::Error) -> Self {
        Self::Invalid { reason: describe(error) }
    }
}

/// Why an uploaded file got no verdict.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// It is refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The host could not look at it; nothing speaks against it. Try again, and look at the machine.
    #[error("the component could not be compiled: {0}")]
    Host(String),
}

impl From<CompileError> for InspectError {
    fn from(error: CompileError) -> Self {
        match error {
            CompileError::Refused(refused) => Self::Refused(refused),
            CompileError::Host(cause) => Self::Host(cause),
        }
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// Looks at the first bytes and the size, before anything is compiled.
pub(crate) fn screen(wasm: &[u8], largest: ByteSize) -> Result<(), Refused> {
    let size = ByteSize(wasm.len() as u64);
    if size > largest {
        return Err(Refused::TooLarge { what: "file".into(), size: size.to_string(), limit: largest.to_string() });
    }
    let found = match wasm {
        [] => "the file is empty",
        [0, b'a', b's', b'm', _, _, 1, 0, ..] => return Ok(()),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => {
            "it is a core module; build for the target wasm32-wasip2, or wrap it with `wasm-tools component new`"
        }
        [0, b'a', b's', b'm', ..] => "it is of an unknown version of WebAssembly",
        _ => "it does not begin as WebAssembly does",
    };
    Err(Refused::NotAComponent { found: found.to_owned() })
}

/// What a component's imports and exports say, before it is linked.
pub(crate) struct Face {
    pub(crate) worlds: Vec<World>,
    pub(crate) imports_wanted: Vec<String>,
    pub(crate) exports: Vec<String>,
}

/// Reads imports and exports, and refuses what cannot be run.
pub(crate) fn face(component: &Component) -> Result<Face, Refused> {
    let (ty, engine) = (component.component_type(), component.engine());
    let exports: Vec<String> = ty.exports(engine).map(|(name, _)| name.to_owned()).collect();
    let worlds = worlds(&exports)?;
    let mut imports_wanted = Vec::new();
    for (name, _) in ty.imports(engine) {
        match grantable(name) {
            None => return Err(Refused::ImportNotGrantable { name: name.to_owned() }),
            Some(Need::Grant) => imports_wanted.push(name.to_owned()),
            Some(Need::Nothing) => {}
        }
    }
    Ok(Face { worlds, imports_wanted, exports })
}

/// What these exports make of a component, if this version runs it.
pub(crate) fn worlds(exports: &[String]) -> Result<Vec<World>, Refused> {
    let worlds: Vec<World> = [World::Checkback, World::CheckbackBatch, World::Consumer]
        .into_iter()
        .filter(|world| exports.iter().any(|name| is_ours(name, world.name())))
        .collect();
    match worlds.first() {
        None => Err(Refused::NoKnownInterface { exports: exports.to_vec() }),
        Some(World::Checkback) => Ok(worlds),
        Some(world) => Err(Refused::NotYetRun { world: *world }),
    }
}

/// Links without running: finds imports and exports whose shape differs from the interface they name.
pub(crate) fn link(linker: &Linker<CallState>, component: &Component) -> Result<CheckbackHostPre<CallState>, Refused> {
    linker.instantiate_pre(component).and_then(CheckbackHostPre::new).map_err(|error| Refused::invalid(&error))
}

enum Need {
    Nothing,
    Grant,
}

/// What can be imported, and whether a binding has to grant it.
fn grantable(import: &str) -> Option<Need> {
    const INERT: [&str; 27] = [
        "wasi:cli/environment",
        "wasi:cli/exit",
        "wasi:cli/stderr",
        "wasi:cli/stdin",
        "wasi:cli/stdout",
        "wasi:cli/terminal-input",
        "wasi:cli/terminal-output",
        "wasi:cli/terminal-stderr",
        "wasi:cli/terminal-stdin",
        "wasi:cli/terminal-stdout",
        "wasi:clocks/monotonic-clock",
        "wasi:clocks/wall-clock",
        "wasi:filesystem/preopens",
        "wasi:filesystem/types",
        "wasi:io/error",
        "wasi:io/poll",
        "wasi:io/streams",
        "wasi:random/insecure",
        "wasi:random/insecure-seed",
        "wasi:random/random",
        "wasi:sockets/instance-network",
        "wasi:sockets/ip-name-lookup",
        "wasi:sockets/network",
        "wasi:sockets/tcp",
        "wasi:sockets/tcp-create-socket",
        "wasi:sockets/udp",
        "wasi:sockets/udp-create-socket",
    ];
    if ["host", "types"].iter().any(|name| is_ours(import, name)) {
        return Some(Need::Nothing);
    }
    if ["state", "outbox", "sql"].iter().any(|name| is_ours(import, name)) {
        return Some(Need::Grant);
    }
    match versioned(import, "0.2")? {
        "wasi:http/outgoing-handler" => Some(Need::Grant),
        "wasi:http/types" => Some(Need::Nothing),
        name if INERT.contains(&name) => Some(Need::Nothing),
        _ => None,
    }
}

/// Whether `import` is `vouch:plugin/<interface>` in a version that this host serves.
fn is_ours(import: &str, interface: &str) -> bool {
    versioned(import, "0.1").and_then(|name| name.strip_prefix("vouch:plugin/")) == Some(interface)
}

/// The name without its version, if that is `series` and a plain patch number.
fn versioned<'a>(import: &'a str, series: &str) -> Option<&'a str> {
    let (name, version) = import.split_once('@')?;
    let patch = version.strip_prefix(series)?.strip_prefix('.')?;
    let plain = !patch.is_empty() && patch.bytes().all(|b| b.is_ascii_digit());
    plain.then_some(name)
}
