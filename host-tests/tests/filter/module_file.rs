//! The module's file: it says nothing of the machine that built it, which is a part of being the same wherever it is built.

use std::path::{Path, PathBuf};

const CRATES: &[u8] = b"/cargo/registry/";

#[test]
fn the_module_names_no_folder_of_a_machine() {
    let module = std::fs::read(host_tests::module()).unwrap();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf();
    let named = ["CARGO_HOME", "RUSTUP_HOME", "CARGO_TARGET_DIR"];
    let folders = named.into_iter().filter_map(std::env::var_os).map(PathBuf::from).chain([workspace]);
    let defaults = std::env::home_dir().into_iter().flat_map(|home| [home.join(".cargo"), home.join(".rustup")]);
    for folder in folders.chain(defaults) {
        let text = folder.to_str().unwrap();
        let found = module.windows(text.len()).position(|part| part == text.as_bytes());
        assert_eq!(found, None, "the module has the path {text}; `cargo xtask test` builds one without");
    }
    // Paths of crates' sources are there, under the name that the build gives them.
    assert!(module.windows(CRATES.len()).any(|part| part == CRATES), "the module has no path of a source");
}
