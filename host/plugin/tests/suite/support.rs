//! An engine in a temporary folder, and bindings in it.

use std::{collections::HashMap, io, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use vouch_plugin::{
    Binding, BindingSpec, Checked, Engine, EngineConfig, InspectError, Message, NoAnswer, Pending, Plugin, Resolver,
    Resolving, UploadRefused, UploadVerdict, Verdict,
};

/// Long enough never to pass in a test that does not want it to.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) struct House {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) engine: Engine,
}

/// Answers from a table; asking for anything else fails the look-up.
pub(crate) struct Table(pub(crate) HashMap<&'static str, Vec<IpAddr>>);

impl Resolver for Table {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        let found = self.0.get(host).cloned().ok_or_else(|| io::Error::other("no such name"));
        Box::pin(std::future::ready(found))
    }
}

impl House {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut EngineConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = EngineConfig::new(folder.path().join("compiled"));
        // Places cost address space and start-up time, and no test needs many.
        config.concurrency = 8;
        change(&mut config);
        Self { engine: Engine::start(config).unwrap(), folder }
    }

    pub(crate) fn resolving(names: &[(&'static str, &[&str])]) -> Self {
        let table =
            names.iter().map(|(name, ips)| (*name, ips.iter().map(|ip| ip.parse().unwrap()).collect())).collect();
        Self::with(|config| config.resolver = Arc::new(Table(table)))
    }

    pub(crate) async fn load(&self, wasm: Bytes) -> Plugin {
        let verdict = self.engine.inspect(wasm.clone()).await.unwrap();
        self.engine.load(&verdict.digest, wasm).await.unwrap()
    }

    pub(crate) async fn bind(&self, wasm: Bytes, change: impl FnOnce(&mut BindingSpec)) -> Binding {
        let mut spec = BindingSpec::new("test");
        spec.limits.deadline = LONG;
        change(&mut spec);
        self.load(wasm).await.bind(spec).unwrap()
    }

    /// Binds and asks once.
    pub(crate) async fn check(&self, wasm: Bytes, change: impl FnOnce(&mut BindingSpec)) -> Checked {
        self.bind(wasm, change).await.check(pending()).await
    }
}

/// An ask with something in every field.
pub(crate) fn pending() -> Pending {
    let body = Bytes::from_static(b"order 4711");
    Pending {
        transaction_id: "0-4711".to_owned(),
        half: Message {
            id: "01AB".to_owned(),
            topic: "orders".to_owned(),
            tag: Some("new".to_owned()),
            keys: vec!["A 17".to_owned(), "B".to_owned()],
            message_group: None,
            properties: vec![("region".to_owned(), "eu/1".to_owned())],
            attributes: vec![("queue-id".to_owned(), "3".to_owned())],
            born_at_ms: 1_000,
            born_host: "h".to_owned(),
            stored_at_ms: 2_000,
            body_size: body.len() as u32,
            body,
        },
        producer: "client-1".to_owned(),
        opened_at_ms: 2_000,
        asked_at_ms: 12_000,
        check_number: 1,
        checks_left: 14,
    }
}

pub(crate) fn rollback(reason: &str) -> Checked {
    Checked::Answer(Verdict::Rollback(reason.to_owned()))
}

pub(crate) const COMMIT: Checked = Checked::Answer(Verdict::Commit);

#[track_caller]
pub(crate) fn no_answer(checked: Checked) -> NoAnswer {
    match checked {
        Checked::NoAnswer(why) => why,
        Checked::Answer(verdict) => panic!("answered {verdict:?}"),
    }
}

#[track_caller]
pub(crate) fn guest_error(checked: Checked) -> String {
    match no_answer(checked) {
        NoAnswer::GuestError(text) => text,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub(crate) fn refused(inspected: Result<UploadVerdict, InspectError>) -> UploadRefused {
    match inspected {
        Err(InspectError::Refused(refused)) => refused,
        other => panic!("{other:?}"),
    }
}
