//! Built-in loops: the programs that `ioscope demo` traces, and the tests measure against.
