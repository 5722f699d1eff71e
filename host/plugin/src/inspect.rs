//! Looks at an uploaded file: what it is, and whether it can be run (ruling 22).

use wasmtime::component::{Component, Linker};

use crate::{
    guest::CallState,
    guest_code::GuestCode,
    quantity::ByteSize,
    upload::{UploadRefused, WASI_SETTING, World},
};

/// Looks at the first bytes and the size, before anything is compiled.
pub(crate) fn screen(wasm: &[u8], largest: ByteSize) -> Result<(), UploadRefused> {
    let size = ByteSize(wasm.len() as u64);
    if size > largest {
        return Err(UploadRefused::TooLarge {
            what: "file".into(),
            size: size.to_string(),
            limit: largest.to_string(),
        });
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
    Err(UploadRefused::NotAComponent { found: found.to_owned() })
}

/// What a component's imports and exports say, before it is linked.
pub(crate) struct Face {
    pub(crate) worlds: Vec<World>,
    pub(crate) imports_wanted: Vec<String>,
    pub(crate) exports: Vec<String>,
}

/// Reads imports and exports, and refuses what cannot be run.
pub(crate) fn face(component: &Component) -> Result<Face, UploadRefused> {
    let (ty, engine) = (component.component_type(), component.engine());
    let exports: Vec<String> = ty.exports(engine).map(|(name, _)| name.to_owned()).collect();
    let worlds = worlds(&exports)?;
    let mut imports_wanted = Vec::new();
    for (name, _) in ty.imports(engine) {
        match grantable(name) {
            None => return Err(not_offered(name)),
            Some(Need::Grant) => imports_wanted.push(name.to_owned()),
            Some(Need::Nothing) => {}
        }
    }
    Ok(Face { worlds, imports_wanted, exports })
}

/// What these exports make of a component.
///
/// # Errors
/// Nothing that this version calls.
pub(crate) fn worlds(exports: &[String]) -> Result<Vec<World>, UploadRefused> {
    let worlds: Vec<World> = [World::Checkback, World::CheckbackBatch, World::Consumer]
        .into_iter()
        .filter(|world| exports.iter().any(|name| is_ours(name, world.name())))
        .collect();
    if worlds.is_empty() {
        let otherwise = exports.iter().find_map(|name| exported_otherwise(name));
        return Err(otherwise.unwrap_or_else(|| UploadRefused::NoKnownInterface { exports: exports.to_vec() }));
    }
    Ok(worlds)
}

/// Links without running: finds imports and exports whose shape differs from the interface they name.
pub(crate) fn link(
    linker: &Linker<CallState>,
    component: &Component,
    worlds: &[World],
) -> Result<GuestCode, UploadRefused> {
    let linked = linker.instantiate_pre(component).and_then(|pre| GuestCode::new(pre, worlds));
    linked.map_err(|error| UploadRefused::invalid(&error))
}

/// What gives a component that fits.
const OURS_SETTING: &str =
    "generate its bindings from the folder wit/ of this version of the broker, package vouch:plugin@0.1.0";

/// Why an import is refused that is not offered.
fn not_offered(import: &str) -> UploadRefused {
    let named = |package: &str| import.split_once('@').is_some_and(|(name, _)| name.starts_with(package));
    let other = |offered: &'static str, setting: &'static str| UploadRefused::OtherVersion {
        found: format!("imports {import}"),
        offered: offered.into(),
        setting: setting.into(),
    };
    if named("vouch:plugin/") && !has_version(import, "0.1") {
        return other("vouch:plugin 0.1", OURS_SETTING);
    }
    if named("wasi:") && !has_version(import, "0.2") {
        return other("WASI 0.2", WASI_SETTING);
    }
    UploadRefused::ImportNotGrantable { name: import.to_owned() }
}

/// Why an export is none of ours, if it is one of another version.
fn exported_otherwise(export: &str) -> Option<UploadRefused> {
    let ours = export.starts_with("vouch:plugin/") && !has_version(export, "0.1");
    ours.then(|| UploadRefused::OtherVersion {
        found: format!("exports {export}"),
        offered: "vouch:plugin 0.1".into(),
        setting: OURS_SETTING.into(),
    })
}

/// Whether a name has a version of this series.
fn has_version(name: &str, series: &str) -> bool {
    versioned(name, series).is_some()
}

/// What an import of a component asks for: nothing that could do harm, or what a binding has to grant.
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
    // `checkback`: what those that export only `checkback-batch` use of its types.
    if ["host", "types", "checkback"].iter().any(|name| is_ours(import, name)) {
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
