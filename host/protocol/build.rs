//! Compiles the interface definition with a compiler written in Rust, so that no system `protoc` is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["apache/rocketmq/v2/service.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .btree_map(".")
        .bytes(".apache.rocketmq.v2.Message.body")
        .compile_fds(files)?;
    Ok(())
}
