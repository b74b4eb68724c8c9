//! Struct layouts and function signatures from the running kernel's BTF.
