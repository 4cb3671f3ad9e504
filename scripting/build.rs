//! Builds the interpreter: the sources of Lua 5.1.5 that the crate `lua-src` brings, with the changes of
//! `interpreter/edits.rs`, together with `interpreter/damselfly.c`. Needs a C compiler and nothing else.
//!
//! `lua-src` can only compile its sources as they are, so all that is used of it is its directory, which cargo
//! knows: the crate is a build dependency, so it is there wherever this runs, offline as well.

#[path = "interpreter/edits.rs"]
mod edits;

use edits::{Change, EDITS};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// What is compiled of Lua. Not `io`, `os`, `debug` and `package`, nor the loader of bytecode (`lundump.c`).
const SOURCES: &[&str] = &[
    "lapi.c",
    "lauxlib.c",
    "lbaselib.c",
    "lcode.c",
    "ldebug.c",
    "ldo.c",
    "ldump.c",
    "lfunc.c",
    "lgc.c",
    "llex.c",
    "lmathlib.c",
    "lmem.c",
    "lobject.c",
    "lopcodes.c",
    "lparser.c",
    "lstate.c",
    "lstring.c",
    "lstrlib.c",
    "ltable.c",
    "ltablib.c",
    "ltm.c",
    "lvm.c",
    "lzio.c",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=interpreter");
    let original = sources_of_lua();
    let lua = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("lua");
    fs::create_dir_all(&lua).expect("OUT_DIR is ours");
    for (name, text) in changed(&original) {
        fs::write(lua.join(name), text).expect("OUT_DIR is ours");
    }
    cc::Build::new()
        .files(SOURCES.iter().map(|name| lua.join(name)))
        .file("interpreter/damselfly.c")
        .include(&lua)
        .include("interpreter")
        // Errors are thrown with _longjmp, which keeps no signal mask: 5 ns instead of a system call.
        .define("LUA_USE_ULONGJMP", None)
        // The interpreter is measured in optimised builds and is too slow to wait for in others.
        .opt_level(2)
        .warnings(false)
        .compile("damselfly-lua");
}

/// The sources and headers, changed.
fn changed(original: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(original).expect("the crate's directory can be read") {
        let path = entry.expect("the crate's directory can be read").path();
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        if name.ends_with(".h") || SOURCES.contains(&name.as_str()) {
            files.insert(name, fs::read_to_string(&path).expect("sources of Lua are text"));
        }
    }
    for (reason, edits) in EDITS {
        for edit in *edits {
            let text = files.get_mut(edit.file).unwrap_or_else(|| panic!("no {}: {reason}", edit.file));
            let places = text.matches(edit.place).count();
            assert!(
                places == 1,
                "interpreter/edits.rs: {:?} occurs {places} times in {}, not once. Other sources of Lua than \
                 expected? What was to be done: {reason}",
                edit.place,
                edit.file
            );
            let new = match edit.change {
                Change::Before(addition) => [addition, edit.place].concat(),
                Change::After(addition) => [edit.place, addition].concat(),
                Change::Instead(new) => new.to_owned(),
                Change::Present => continue,
            };
            *text = text.replacen(edit.place, &new, 1);
        }
    }
    files
}

/// Where the crate `lua-src` has Lua 5.1.5.
fn sources_of_lua() -> PathBuf {
    let output = Command::new(env::var_os("CARGO").expect("cargo sets it"))
        // Packages of other systems may not have been fetched.
        .args(["metadata", "--format-version=1", "--locked", "--filter-platform"])
        .arg(env::var_os("TARGET").expect("cargo sets it"))
        .output()
        .expect("cargo runs");
    let answer = String::from_utf8_lossy(&output.stdout);
    // Of all packages, as JSON, the paths of their manifests: that is not worth a dependency for reading JSON.
    let manifests = answer.split(r#""manifest_path":""#).skip(1).filter_map(|rest| rest.split('"').next());
    let mut found = manifests.filter_map(|manifest| {
        let package = Path::new(manifest).parent()?;
        let ours = package.file_name()?.to_str()?.starts_with("lua-src");
        Some(package.join("lua-5.1.5")).filter(|sources| ours && sources.is_dir())
    });
    found.next().unwrap_or_else(|| {
        panic!(
            "cargo metadata does not tell where lua-src is, whose lua-5.1.5/ is needed; it says: {}",
            String::from_utf8_lossy(&output.stderr)
        )
    })
}
