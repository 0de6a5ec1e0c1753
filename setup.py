"""Builds the native extension; nearly everything else about the package is in pyproject.toml.

The C kernels are one vector-generic source compiled once per instruction set; the
set is chosen when the package is imported, so nothing here asks what the build
machine's CPU can do. Where there is no C compiler that takes the source, the package is
built without the extension and needs Numba, its second back end: that is why the
dependencies are listed here and not in pyproject.toml. Environment:

FASTDECONV_REQUIRE_NATIVE=1  fail when the extension cannot be built
FASTDECONV_SANITIZE=1        AddressSanitizer and UndefinedBehaviorSanitizer (for tests)
FASTDECONV_ABI3=1            one extension for Python 3.11 and all later ones (for released
                             wheels; calls take up to 3 % longer, see CONTRIBUTING.md)
"""

import os
import platform
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from itertools import chain
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

# After setuptools, which brings them.
from distutils.ccompiler import new_compiler  # isort: skip
from distutils.sysconfig import customize_compiler  # isort: skip

DEPENDENCIES = [
    "numpy>=1.26",
    "scipy>=1.15",
    "soundfile>=0.13",
    "soxr>=0.3.2",
    "click>=8.2",
    "tqdm>=4.66",
    "jinja2>=3.1",
    "markupsafe>=2.0",
]
# Where there is no native extension.
WITHOUT_NATIVE = ["numba>=0.60", "llvmlite>=0.43"]

ONCE = ["csrc/memory.c", "csrc/planar.c", "csrc/runtime.c", "csrc/schedule.c",
        "csrc/tiles_cpu.c"]
PER_ISA = [
    "csrc/cells.c", "csrc/combine.c", "csrc/conv.c", "csrc/join.c", "csrc/layout.c",
    "csrc/overlap.c", "csrc/pool.c", "csrc/project.c", "csrc/single.c", "csrc/table.c",
    "csrc/winograd.c",
]
HEADERS = sorted(glob("csrc/*.h"))
CYTHON = sorted(glob("fastdeconv/kernels/*.px[di]"))
X86 = {
    "baseline": ["-march=x86-64"],
    "avx2": ["-march=x86-64-v3"],
    # 512-bit vectors are the point of this set; compilers prefer 256 by default.
    "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
}
ARM = {"neon": []}
# Tiles (csrc/tiles.h): these units are compiled again, with the instructions of AMX where the
# compiler knows them, and with functions of ours in their place for every machine.
WITH_TILES = ["csrc/project.c"]
AMX = [*X86["avx512"], "-mavx512bf16", "-mamx-tile", "-mamx-bf16"]
AMX_CHECK = """
#include <immintrin.h>
void check(const void *shapes, const void *from) {
    _tile_loadconfig(shapes);
    _tile_loadd(1, from, 64);
    _tile_dpbf16ps(0, 1, 2);
    _tile_release();
}
"""

FLAGS = ["-O3", "-g0", "-std=gnu11", "-fvisibility=hidden", "-fno-math-errno", "-Wall", "-Wextra"]
# A macro that is asked for before its header is included counts as 0: kernels would be left out.
FLAGS += ["-Wundef"]
# A fused multiply-add happens where the source says so and nowhere else: equal
# patches must give equal bits whatever tile they fall into.
FLAGS += ["-ffp-contract=off"]
THREADS = ["-pthread"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-g", "-O1"]


def instruction_sets():
    # Not platform.machine(), which is that of the builder: compiling for another one is usual on
    # macOS. A Python for both machines is built for the one it runs on.
    machine = sysconfig.get_platform().lower().rpartition("-")[2]
    if machine == "universal2":
        machine = platform.machine().lower()
    if machine in ("x86_64", "amd64"):
        return X86
    if machine in ("aarch64", "arm64"):
        return ARM
    return {}


if sys.platform == "darwin":
    # Flags of one instruction set do not go with those for two machines.
    os.environ.setdefault("ARCHFLAGS", f"-arch {platform.machine()}")


def obstacle():
    """Why the kernels cannot be compiled here, or None if they can.

    It must be known before anything is built, since installers ask for the dependencies first.
    """
    sets = instruction_sets()
    if not sets:
        return f"there are no native kernels for {sysconfig.get_platform()}"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "attempt.c")
        source.write_text(
            "#include <Python.h>\ntypedef float lanes __attribute__((vector_size(16)));\n"
        )
        try:
            compiler = new_compiler()
            customize_compiler(compiler)
            for flags in sets.values():
                compiler.compile(
                    [str(source)],
                    output_dir=folder,
                    include_dirs=[sysconfig.get_path("include")],
                    extra_postargs=FLAGS + flags,
                )
        except Exception as error:
            return str(error)
    return None


def without_native(reason):
    print(
        f"fastdeconv: the native extension is not built ({reason}); the package runs on its "
        "second back end, which needs Numba",
        file=sys.stderr,
    )


class BuildKernels(build_ext):
    """Compiles the kernels once per instruction set and links them into the extension."""

    def build_extension(self, ext):
        sets = instruction_sets()
        flags = FLAGS + (SANITIZE if os.environ.get("FASTDECONV_SANITIZE") else [])
        units = [(isa, unit, sets[isa], []) for isa in sets for unit in PER_ISA]
        # With a multiply-add that rounds once, like AVX-512's beside the real tiles.
        tiles = {"amx_emulated": sets["avx2" if sets is X86 else "neon"]}
        if sets is X86 and self.knows_amx():
            tiles["amx"] = AMX
            ext.define_macros = [*ext.define_macros, ("FD_HAS_AMX", "1")]
        units += [
            (isa, unit, tiles[isa], [("FD_WITH_TILES", "1")])
            for isa in tiles for unit in WITH_TILES
        ]
        for isa in (*sets, *tiles):
            # Made here, because threads below would be in each other's way.
            Path(self.build_temp, isa, "csrc").mkdir(parents=True, exist_ok=True)

        def compile_unit(isa, unit, own_flags, macros):
            return self.compiler.compile(
                [unit],
                output_dir=str(Path(self.build_temp) / isa),
                macros=[("FD_ISA", isa), *macros],
                include_dirs=["csrc"],
                extra_postargs=flags + own_flags,
                depends=HEADERS,
            )

        # Compiling is most of what an installation from source takes.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            ext.extra_objects = [*chain.from_iterable(pool.map(compile_unit, *zip(*units)))]
        ext.extra_compile_args = flags + THREADS
        ext.extra_link_args = THREADS + (
            SANITIZE[:1] if os.environ.get("FASTDECONV_SANITIZE") else []
        )
        super().build_extension(ext)

    def knows_amx(self):
        """Whether compiler and assembler have the instructions of AMX."""
        check = Path(self.build_temp, "amx_check.c")
        check.parent.mkdir(parents=True, exist_ok=True)
        check.write_text(AMX_CHECK, encoding="ascii")
        try:
            self.compiler.compile([str(check)], output_dir=self.build_temp, extra_postargs=AMX)
        except CompileError:
            print("fastdeconv: built without AMX, which this compiler does not know")
            return False
        return True

    def run(self):
        try:
            super().run()
        except Exception as error:
            # Numba is no dependency then: that was decided before, see `obstacle`.
            raise RuntimeError(
                f"the native extension cannot be built: {error}. With CC=false in the environment "
                "the package is installed without it, and with Numba"
            ) from error


is_abi3 = (
    bool(os.environ.get("FASTDECONV_ABI3"))
    and sys.version_info >= (3, 11)
    and not sysconfig.get_config_var("Py_GIL_DISABLED")  # which has no limited API yet
)
extensions = [
    Extension(
        "fastdeconv.kernels.native",
        ["fastdeconv/kernels/native.pyx", *ONCE],
        include_dirs=["csrc"],
        depends=[*HEADERS, *PER_ISA, *CYTHON],
        py_limited_api=is_abi3,
        define_macros=[("Py_LIMITED_API", "0x030B0000")] if is_abi3 else [],
    )
]
dependencies = [*DEPENDENCIES]
reason = obstacle()
if reason is not None:
    if os.environ.get("FASTDECONV_REQUIRE_NATIVE"):
        raise RuntimeError(reason)
    without_native(reason)
    extensions = []
    dependencies += WITHOUT_NATIVE

setup(
    install_requires=dependencies,
    ext_modules=extensions,
    cmdclass={"build_ext": BuildKernels},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if is_abi3 and extensions else {},
)
