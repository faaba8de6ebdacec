//! The cargo-fuzz project has each body, and no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use overlay_fuzz::targets;

#[test]
fn the_cargo_fuzz_project_has_each_body_and_no_other() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("libfuzzer");
    let names: BTreeSet<String> = targets().map(|(name, _)| name.to_owned()).collect();

    let files = fs::read_dir(project.join("fuzz_targets")).unwrap().map(|file| file.unwrap().path());
    let files: BTreeSet<String> = files.map(|path| path.file_stem().unwrap().to_string_lossy().into()).collect();
    assert_eq!(files, names, "left: libfuzzer/fuzz_targets, right: TARGETS");
    for name in &names {
        let expected =
            format!("#![no_main]\nlibfuzzer_sys::fuzz_target!(|bytes: &[u8]| overlay_fuzz::run(\"{name}\", bytes));\n");
        assert_eq!(fs::read_to_string(project.join(format!("fuzz_targets/{name}.rs"))).unwrap(), expected);
    }

    let manifest = fs::read_to_string(project.join("Cargo.toml")).unwrap();
    let bins: BTreeSet<String> = manifest.split("[[bin]]\n").skip(1).map(str::trim).map(ToOwned::to_owned).collect();
    let expected = |name| {
        format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"\ntest = false\ndoc = false\nbench = false")
    };
    assert_eq!(bins, names.iter().map(expected).collect(), "left: [[bin]] in libfuzzer/Cargo.toml, right: TARGETS");
}
