//! How the system gives this process memory.

/// Asks for small pages alone. What a pipeline keeps and what passes through it lie close together: in pages of 2 MiB
/// hardly one ever becomes free again, and a load takes a quarter more memory. For this process and those it starts;
/// a system without such pages has nothing to ask for.
pub fn use_small_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::debug!(%error, "memory comes in huge pages too");
    }
}
