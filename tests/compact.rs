//! Build script of the crates whose tests carry the engine: their executables get compressed line tables.
//!
//! There are some thirty of them with 150 MB each, of which 100 MB say what line a backtrace goes through. Compressed these are
//! 21 MB, and whoever panics unpacks them. The binary has them as they are: it should have little to do when it dies.

#![allow(clippy::print_stdout, reason = "what a build script says, it says there")]

fn main() {
    // It looks at nothing, so nothing that changes concerns it.
    println!("cargo::rerun-if-changed=Cargo.toml");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        // Heard by what is linked of this package alone: nothing else is built anew for it.
        println!("cargo::rustc-link-arg=-Wl,--compress-debug-sections=zlib");
    }
}
