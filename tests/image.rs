//! The image: what its build is given must be enough for it, which otherwise only a daemon would find out.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The folders of all members of the workspace.
fn members() -> Vec<String> {
    let manifest = read("Cargo.toml");
    let list = manifest.split("members = [").nth(1).and_then(|rest| rest.split(']').next());
    let quoted = list.expect("the workspace has members").split('"').skip(1).step_by(2);
    quoted.map(str::to_owned).collect()
}

/// Every member of the workspace is in the build's context: without one, cargo refuses all of them.
#[test]
fn context_has_the_workspace() {
    let ignored = read(".dockerignore");
    let kept: Vec<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let members = members();
    assert!(members.len() > 10, "{members:?}");
    for name in members.iter().map(String::as_str).chain(["Cargo.toml", "Cargo.lock", "k8s/image"]) {
        assert!(kept.contains(&name), "{name} is not in the context of the image's build");
    }
    for name in kept {
        assert!(root().join(name).exists(), "{name} is not there");
    }
}

/// What is copied from the context is there, and the compiler is the one that the workspace asks for.
#[test]
fn recipe_is_of_this_tree() {
    let recipe = read("Dockerfile");
    let copies = recipe.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from="));
    let mut count = 0;
    for line in copies {
        let words: Vec<&str> =
            line.split_whitespace().skip(1).filter(|word| !word.starts_with("--")).collect();
        let (_, sources) = words.split_last().expect("a place to copy to");
        for source in sources {
            assert!(root().join(source).exists(), "{line}");
            count += 1;
        }
    }
    assert!(count >= 3, "the whole context, and the image's scripts");
    let version = read("Cargo.toml")
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = \""))
        .map(|rest| rest.trim_end_matches('"').to_owned());
    let version = version.expect("the workspace names a version");
    assert!(recipe.contains(&format!("FROM rust:{version}-")), "the image is not built with {version}");
}
