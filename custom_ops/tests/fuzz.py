"""Builds tests/fuzz.cc with sanitizers, by clang's libFuzzer or else g++, and runs it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
OUT = HERE.parent / "build" / "fuzz"
ISA_LINES = (HERE / "isa_flags.txt").read_text().splitlines()
ISA = {name: flags for name, *flags in map(str.split, ISA_LINES)}
SANITIZERS = "address,undefined"


def main() -> int:
    """Return the exit status of the run; findings are left in build/fuzz."""
    seconds = sys.argv[1] if len(sys.argv) > 1 else "600"
    clang = shutil.which("clang++")
    compiler = clang or shutil.which("g++")
    if compiler is None:
        print("make fuzz needs clang++ or g++.", file=sys.stderr)
        return 2
    OUT.mkdir(parents=True, exist_ok=True)
    if clang:
        compiled, linked = [f"-fsanitize=fuzzer-no-link,{SANITIZERS}"], f"fuzzer,{SANITIZERS}"
    else:
        compiled, linked = [f"-fsanitize={SANITIZERS}", "-DTFPRUNE_OWN_MAIN"], SANITIZERS
    x86 = os.uname().machine in ("x86_64", "AMD64")
    objects = []
    for source in [*sorted((HERE / "core").glob("*.cc")), HERE / "tests" / "fuzz.cc"]:
        flags = ISA.get(source.stem.rpartition("_")[2], []) if x86 else []
        objects.append(str(OUT / f"{source.stem}.o"))
        common = ["-std=c++17", "-O1", "-g", "-fno-sanitize-recover=all", "-pthread", f"-I{HERE}"]
        command = [compiler, *common, *compiled, *flags, "-c", str(source), "-o", objects[-1]]
        subprocess.run(command, check=True)
    program = str(OUT / "fuzz")
    subprocess.run(
        [compiler, f"-fsanitize={linked}", "-pthread", *objects, "-o", program], check=True
    )
    if not clang:
        return subprocess.run([program, seconds], cwd=OUT).returncode
    (OUT / "corpus").mkdir(exist_ok=True)
    limits = [f"-max_total_time={seconds}", "-max_len=2000", "-rss_limit_mb=4000"]
    return subprocess.run([program, "corpus", *limits], cwd=OUT).returncode


if __name__ == "__main__":
    sys.exit(main())
