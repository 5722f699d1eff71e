//! What an uploaded file turns out to be, or why it is refused (ruling 22).

use std::{borrow::Cow, time::Duration};

use serde::{Deserialize, Serialize, Serializer};

use crate::{declared::DeclaredConfig, error_text::describe};

/// What gives a component that fits, for the toolchains that there are.
pub(crate) const WASI_SETTING: &str = "build it for WASI 0.2: target wasm32-wasip2 in Rust, -target=wasip2 in TinyGo, a wit folder with \
    wasi 0.2 for componentize-js, componentize-py and wit-bindgen";

/// What a component exports, and so what it can be bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum World {
    /// Settles open transactions one by one.
    Checkback,
    /// Settles them many at a time.
    CheckbackBatch,
    /// Consumes messages.
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
    pub config: Option<DeclaredConfig>,
    /// What its author should know: what it says of its config and this version does not check.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
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
pub enum UploadRefused {
    /// Not a WebAssembly component.
    #[error("this is not a WebAssembly component: {found}")]
    NotAComponent {
        /// What it is instead.
        found: String,
    },
    /// Exports nothing that the broker could call.
    #[error(
        "the component exports no interface that Vouch knows (it exports {}): export vouch:plugin/checkback@0.1.0, checkback-batch or \
         consumer",
        list(.exports)
    )]
    NoKnownInterface {
        /// What it exports.
        exports: Vec<String>,
    },
    /// Wants something that no binding can grant.
    #[error(
        "the component imports {name}, which no binding can grant: build it without (see the manual for what can be imported)"
    )]
    ImportNotGrantable {
        /// The import as the file names it.
        name: String,
    },
    /// Made for another version of an interface that this version of the broker offers, or calls.
    #[error("the component {found}: this version of the broker has {offered}; {setting}")]
    OtherVersion {
        /// What it imports or exports, as the file names it.
        found: String,
        /// What there is instead.
        offered: Cow<'static, str>,
        /// What makes a component fit.
        setting: Cow<'static, str>,
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

impl UploadRefused {
    /// A stable word for error URNs, metrics and tests.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotAComponent { .. } => "not-a-component",
            Self::NoKnownInterface { .. } => "no-known-interface",
            Self::ImportNotGrantable { .. } => "import-not-grantable",
            Self::OtherVersion { .. } => "other-version",
            Self::TooLarge { .. } => "too-large",
            Self::TooCostly { .. } => "too-costly",
            Self::Invalid { .. } => "invalid",
        }
    }

    /// The component is refused for what the engine says of it.
    pub(crate) fn invalid(error: &wasmtime::Error) -> Self {
        Self::invalid_since(describe(error))
    }

    /// It is refused for this reason, in the engine's words.
    pub(crate) fn invalid_since(reason: String) -> Self {
        // The engine has no type for this one; a test holds the words.
        if reason.contains("component model async") {
            return Self::OtherVersion {
                found: "uses asynchronous functions, as WASI 0.3 has them".to_owned(),
                offered: "WASI 0.2".into(),
                setting: WASI_SETTING.into(),
            };
        }
        Self::Invalid { reason }
    }
}

/// Names for a sentence.
fn list(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}
