//! Compiles the interface definition with a compiler written in Rust, so that no system `protoc` is needed, and writes down
//! the shape of every request: which of its fields repeat, and which hold further messages.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;

const PACKAGE: &str = ".apache.rocketmq.v2";
/// Numbers of types and labels in a descriptor (descriptor.proto).
const TYPE_STRING: i32 = 9;
const TYPE_MESSAGE: i32 = 11;
const TYPE_BYTES: i32 = 12;
const LABEL_REPEATED: i32 = 3;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["apache/rocketmq/v2/service.proto"], ["proto"])?;
    // (Full name, whether it is an entry of a map) to its definition.
    let mut messages = BTreeMap::new();
    let mut own = Vec::new();
    for file in &files.file {
        let package = format!(".{}", file.package());
        for message in &file.message_type {
            let name = format!("{package}.{}", message.name());
            for nested in &message.nested_type {
                messages.insert(format!("{name}.{}", nested.name()), nested.clone());
            }
            if package == PACKAGE {
                own.push(message.name().to_owned());
            }
            messages.insert(name, message.clone());
        }
    }
    let constant = |name: &str| name.trim_start_matches('.').replace('.', "_").to_uppercase();
    let mut shapes = String::new();
    for (name, message) in &messages {
        let mut fields = String::new();
        for field in &message.field {
            let (kind, repeated) = (field.r#type.unwrap_or_default(), field.label == Some(LABEL_REPEATED));
            let inside = messages.get(field.type_name()).filter(|_| kind == TYPE_MESSAGE);
            if !(inside.is_some() || repeated && matches!(kind, TYPE_STRING | TYPE_BYTES)) {
                continue;
            }
            let entry = inside.is_some_and(|inside| inside.options.as_ref().is_some_and(|options| options.map_entry()));
            let repeats = match (repeated, entry || inside.is_none()) {
                (false, _) => "None",
                (true, false) => "Some(Kind::Message)",
                (true, true) => "Some(Kind::Text)",
            };
            let within = inside.map_or("None".to_owned(), |_| format!("Some(&{})", constant(field.type_name())));
            let (number, name) = (field.number(), field.name());
            write!(fields, "Field {{ number: {number}, name: {name:?}, repeats: {repeats}, within: {within} }}, ")?;
        }
        writeln!(shapes, "static {}: Shape = Shape {{ fields: &[{fields}] }};", constant(name))?;
    }
    for name in
        own.iter().filter(|name| name.ends_with("Request") || name.ends_with("Response") || *name == "TelemetryCommand")
    {
        // What comes from strangers; answers are our own.
        let counted = name.ends_with("Request") || name == "TelemetryCommand";
        let constant = constant(&format!("{PACKAGE}.{name}"));
        let shape = if counted { format!("Some(&{constant})") } else { "None".to_owned() };
        writeln!(shapes, "impl Shaped for crate::wire::{name} {{ const SHAPE: Option<&'static Shape> = {shape}; }}")?;
    }
    std::fs::write(PathBuf::from(std::env::var("OUT_DIR")?).join("shapes.rs"), shapes)?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .btree_map(".")
        .bytes(".apache.rocketmq.v2.Message.body")
        .codec_path("crate::codec::CheckedCodec")
        .compile_fds(files)?;
    Ok(())
}
