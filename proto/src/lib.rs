//! gRPC: the messages and services of the `.proto` files, as Rust.

/// How other processes of the machine reach the log store.
pub mod log {
    /// Package `serviceradar.log.v1`.
    #[expect(missing_docs, reason = "what the generator writes")]
    pub mod v1 {
        tonic::include_proto!("serviceradar.log.v1");
    }
}

/// How programs ask in SRQL.
pub mod query {
    /// Package `serviceradar.query.v1`.
    #[expect(missing_docs, reason = "what the generator writes")]
    pub mod v1 {
        tonic::include_proto!("serviceradar.query.v1");

        /// The package as a `FileDescriptorSet`, for reflection.
        pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("query");
    }
}
