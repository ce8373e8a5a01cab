//! Breaks Dwell on purpose, and checks what its clients saw.
