//! runtime-linux
