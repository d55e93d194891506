//! Zig and cargo-zigbuild from PyPI. They link static binaries, with C code, for both processor architectures.

use std::path::{Path, PathBuf};

use super::wheel::Wheel;
use super::{ToolError, once};

const ZIG: Wheel = Wheel {
    what: "Zig 0.15.2",
    package: "ziglang",
    version: "0.15.2",
    files: [
        ("x86_64", "manylinux_2_12_x86_64", "806316453d1ede7174ed3fefb8e5348154629089c3bb5fe812dfd0e172fac130"),
        ("aarch64", "manylinux_2_17_aarch64", "edc0aa60ec964a4cf462d40f68d7de242ddf37fd9a80f2afaee6397059463230"),
    ],
    hint: "make releases on Linux",
    programs: &["ziglang/zig"],
};
const ZIGBUILD: Wheel = Wheel {
    what: "cargo-zigbuild 0.24.1",
    package: "cargo-zigbuild",
    version: "0.24.1",
    files: [
        ("x86_64", "manylinux1_x86_64", "238a1ab54a95053a4eadc34775c81f795a8ad75f80bfed63f3f445f518102375"),
        ("aarch64", "manylinux2014_aarch64", "07c5e3dcddf208500462ec927c556bb306cca2b533b0abe29446bffb63767b85"),
    ],
    hint: "make releases on Linux",
    programs: &["cargo_zigbuild-0.24.1.data/scripts/cargo-zigbuild"],
};

/// Returns the paths of `cargo-zigbuild` and `zig`.
pub(crate) fn find(tools: &Path) -> Result<(PathBuf, PathBuf), ToolError> {
    let place = |wheel: &Wheel| tools.join(format!("{}-{}", wheel.package, wheel.version));
    for wheel in [&ZIG, &ZIGBUILD] {
        once(wheel.what, &place(wheel), |dir| wheel.fetch(dir))?;
    }
    let program = |wheel: &Wheel| place(wheel).join(wheel.programs.first().copied().unwrap_or_default());
    Ok((program(&ZIGBUILD), program(&ZIG)))
}
