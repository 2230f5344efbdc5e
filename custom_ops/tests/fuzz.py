"""Builds tests/fuzz.cc with sanitizers, by clang's libFuzzer or else g++, and runs it."""

import shutil
import subprocess
import sys

from programs import ROOT, TESTS, compiled, core, linked

OUT = ROOT.parent / "build" / "fuzz"
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
        options, sanitize = [f"-fsanitize=fuzzer-no-link,{SANITIZERS}"], f"fuzzer,{SANITIZERS}"
    else:
        options, sanitize = [f"-fsanitize={SANITIZERS}", "-DTFPRUNE_OWN_MAIN"], SANITIZERS
    options += ["-O1", "-g", "-fno-sanitize-recover=all"]
    objects = compiled(compiler, [*core(), TESTS / "fuzz.cc"], OUT, options)
    program = linked(compiler, objects.values(), OUT / "fuzz", f"-fsanitize={sanitize}")
    if not clang:
        return subprocess.run([program, seconds], cwd=OUT).returncode
    (OUT / "corpus").mkdir(exist_ok=True)
    limits = [f"-max_total_time={seconds}", "-max_len=2000", "-rss_limit_mb=4000"]
    return subprocess.run([program, "corpus", *limits], cwd=OUT).returncode


if __name__ == "__main__":
    sys.exit(main())
