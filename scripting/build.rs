//! Compiles the Lua of `lua/` into a static library: a C compiler is all that is needed.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=lua");
    let files = std::fs::read_dir("lua").expect("the sources of Lua are in lua/");
    let mut sources: Vec<_> = files.map(|file| file.expect("readable").path()).collect();
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "c"));
    sources.sort();
    cc::Build::new()
        .files(sources)
        .include(Path::new("lua"))
        // Errors are thrown with _longjmp, which keeps no signal mask: 5 ns instead of a system call.
        .define("LUA_USE_ULONGJMP", None)
        // The interpreter is measured in optimised builds and is too slow to wait for in others.
        .opt_level(2)
        .warnings(false)
        .compile("damselfly-lua");
}
