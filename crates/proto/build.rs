//! Generates Rust from `proto/` with protox, a protobuf compiler in Rust: no `protoc` is needed.

use std::path::PathBuf;

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let files = [
        "dwell/v1/message.proto",
        "dwell/v1/messages.proto",
        "dwell/v1/queues.proto",
        "dwell/v1/exchanges.proto",
        "dwell/v1/inventory.proto",
        "dwell/v1/schedules.proto",
        "dwell/v1/cluster.proto",
        "dwell/v1/users.proto",
        "dwell/v1/backups.proto",
        "dwell/peer/v1/raft.proto",
        "externalscaler/externalscaler.proto",
    ];
    let descriptors = protox::compile(files, [&root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let mut types = tonic_prost_build::Config::new();
    types.enable_type_names();
    tonic_prost_build::configure()
        .codec_path("crate::request::RequestCodec")
        .bytes(".")
        .btree_map(".dwell.v1.Message.headers")
        .btree_map(".dwell.v1.Binding.headers")
        .btree_map(".dwell.v1.Filter.headers")
        .btree_map(".externalscaler.ScaledObjectRef.scalerMetadata")
        .skip_protoc_run()
        .compile_fds_with_config(descriptors, types)?;
    Ok(())
}
