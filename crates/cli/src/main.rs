//! The `dwell` binary: server, local cluster, client commands, benchmark.

fn main() {}
