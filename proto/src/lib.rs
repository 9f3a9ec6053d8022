//! gRPC: the messages and services of the `.proto` files, as Rust.

/// How other processes of the machine reach the log store.
pub mod log {
    /// Package `serviceradar.log.v1`.
    #[expect(missing_docs, reason = "what the generator writes")]
    pub mod v1 {
        tonic::include_proto!("serviceradar.log.v1");
    }
}
