//! What a component wants and its binding does not grant, and the other way round.

use super::Binding;

/// Something that a binding can grant.
struct Capability {
    /// As it is written in the grants.
    grant: &'static str,
    /// What a component imports to use it, up to the version.
    import: &'static str,
    /// What becomes of a component that wants it in vain.
    lack: &'static str,
}

const CAPABILITIES: [Capability; 4] = [
    Capability {
        grant: "http",
        import: "wasi:http/",
        lack: "the binding grants no origin: every request will be denied",
    },
    Capability {
        grant: "sql",
        import: "vouch:plugin/sql@",
        lack: "the binding grants no database: every call answers not-granted",
    },
    Capability {
        grant: "state",
        import: "vouch:plugin/state@",
        lack: "the binding grants no state: every call answers not-granted",
    },
    Capability {
        grant: "publish",
        import: "vouch:plugin/outbox@",
        lack: "the binding grants no topic to publish to: every call answers not-granted",
    },
];

impl Binding {
    /// What the operator should know: the component wants something that the binding does not grant, or the other way
    /// round. Empty if all is well.
    pub fn warnings(&self) -> Vec<String> {
        let wanted = &self.0.code.imports_wanted;
        let mut warnings = Vec::new();
        for Capability { import, lack, .. } in CAPABILITIES.iter().filter(|capability| !self.grants(capability)) {
            let imports = wanted.iter().filter(|name| name.starts_with(import));
            warnings.extend(imports.map(|name| format!("the component imports {name} and {lack}")));
        }
        for Capability { grant, import, .. } in CAPABILITIES.iter().filter(|capability| self.grants(capability)) {
            if !wanted.iter().any(|name| name.starts_with(import)) {
                warnings.push(format!(
                    "the binding grants {grant} and the component does not import it: the grant has no use"
                ));
            }
        }
        warnings
    }

    /// Whether it grants something of this.
    fn grants(&self, capability: &Capability) -> bool {
        match capability.grant {
            "http" => !self.0.grants.is_empty(),
            "sql" => !self.0.databases.is_empty(),
            "state" => self.0.lent.state,
            _ => !self.0.lent.publish.is_empty(),
        }
    }
}
