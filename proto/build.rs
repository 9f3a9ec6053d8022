//! Makes Rust of the `.proto` files, without an installed `protoc`.

use std::{env, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["log_store.proto", "query.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(files)?;
    // What reflection tells is the service that is asked from elsewhere.
    let query = protox::Compiler::new(["proto"])?
        .include_source_info(false)
        .include_imports(true)
        .open_file("query.proto")?
        .encode_file_descriptor_set();
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("query.bin"), query)?;
    Ok(())
}
