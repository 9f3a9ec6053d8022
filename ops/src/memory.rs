//! How much memory there is, and how the system gives this process of it.

/// Asks for small pages alone. What a pipeline keeps and what passes through it lie close together: in pages of 2 MiB
/// hardly one ever becomes free again, and a load takes a quarter more memory. For this process and those it starts;
/// a system without such pages has nothing to ask for.
pub fn use_small_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::debug!(%error, "memory comes in huge pages too");
    }
}

/// Fewest threads for work that blocks: reads of the log, decoding, the dataflow.
const BLOCKING_THREADS_MIN: usize = 4;

/// The runtime that the program runs in. It has few threads for work that blocks, since each keeps memory of its own.
///
/// # Errors
/// Where the machine gives no more threads.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let blocking = BLOCKING_THREADS_MIN.max(2 * processors);
    tokio::runtime::Builder::new_multi_thread().max_blocking_threads(blocking).enable_all().build()
}

/// The machine's memory, KiB; none where the system does not say.
pub fn of_machine() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
