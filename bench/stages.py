#!/usr/bin/env python3
"""Where a server's processor time goes, by stage: reads what `perf script` prints of its samples.

    perf record -F 499 --call-graph dwarf,24576 -p PID -- sleep 4
    perf script --no-inline -F comm,tid,ip,sym | bench/stages.py MICROSECONDS

MICROSECONDS is what a message takes in that server: its processor time (fields 14 and 15 of /proc/PID/stat) by the messages
acknowledged meanwhile (`dwell_queue_acknowledged_total`). A sample counts for the first stage of which it holds a frame.
"""

import collections
import re
import sys

STAGES = [
    ("apply: rows kept in memory, and dropped", r"StateStore::commit|Committed::commit|Overlay::absorb"),
    ("apply: the machine, with the rows it reads", r"dwell_machine::(?!command)|dwell_storage::state"),
    ("batch and encode commands", r"dwell_consensus::proposer|Batch::encode"),
    ("decode a log entry", r"Batch::decode|dwell_machine::command.*merge|LogEntry::decode|codec::decode"),
    ("sync", r"fdatasync|fsync|sync_file"),
    ("append to the log", r"raft_engine|dwell_storage::log|log_store"),
    ("rows to RocksDB", r"rocksdb"),
    ("effects: deliveries to their streams", r"dwell_server::hub"),
    ("publish stream: check, confirm", r"publish_stream|validate::publish"),
    ("consume stream: deliver, settle", r"services::consume|services::deliveries"),
    ("replicate", r"dwell_consensus::peer|replication"),
    ("Raft", r"openraft::"),
    ("gRPC and HTTP/2, with their sockets", r"h2::|hyper|tonic"),
    ("tasks, timers, waiting and waking", r"."),
]


def samples(lines):
    """The frames of each sample, with its thread's name."""
    thread, frames = None, []
    for line in lines:
        if not line.strip():
            if thread is not None:
                yield thread, frames
            thread, frames = None, []
        elif thread is None:
            thread = line.split()[0]
        else:
            frames.append(line.strip().partition(" ")[2])
    if thread is not None:
        yield thread, frames


def stage_of(frames):
    for name, pattern in STAGES:
        if any(re.search(pattern, frame) for frame in frames):
            return name
    return STAGES[-1][0]


def main():
    microseconds = float(sys.argv[1])
    counts, in_kernel, total = collections.Counter(), collections.Counter(), 0
    for _, frames in samples(sys.stdin):
        stage = stage_of(frames)
        counts[stage] += 1
        in_kernel[stage] += any("entry_SYSCALL" in frame for frame in frames)
        total += 1
    for stage, count in counts.most_common():
        kernel = 100 * in_kernel[stage] / count
        print(f"{microseconds * count / total:6.2f} us {100 * count / total:5.1f} %  {kernel:3.0f} % in the kernel  {stage}")
    print(f"{total} samples")


if __name__ == "__main__":
    main()
