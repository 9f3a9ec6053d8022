//! Crawls and the faker, end to end over HTTP and a log in memory.

#[cfg(test)]
mod bench;
#[cfg(test)]
mod crawl;
#[cfg(test)]
mod faker;
#[cfg(test)]
mod odd_servers;
