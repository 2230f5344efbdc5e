"""The shell command `tfprune`: demo, prune, report, export, bench."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tfprune.export.storage import STORAGES
from tfprune.export.targets import registry as targets
from tfprune.methods import METHODS
from tfprune.shell.arguments import check_out, positive, rate, seed, shape, sparsity

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
_BAD = (
    ValueError,
    TypeError,
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: as typed, without the program's name; None: those of the process.

    Returns:
        The exit code: 0; 2 for wrong usage or bad input; 1 where something failed on the way.
    """
    options = _parser().parse_args(arguments)
    try:
        with _only_result_on_stdout(options.json):
            lines, data = options.run(options)
        print(json.dumps(data, indent=2, allow_nan=False) if options.json else lines)
        return 0
    except KeyboardInterrupt:
        return _say("interrupted", INTERRUPTED)
    except Exception as error:
        if options.traceback:
            raise
        return _say(single_line(error), BAD_INPUT if isinstance(error, _BAD) else FAILED)


def _say(message: str, code: int) -> int:
    print(f"tfprune: error: {message}", file=sys.stderr)
    return code


def single_line(error: Exception) -> str:
    """Message of an error on a single line, without Keras' decoration."""
    text = re.sub(r"\x1b\[[\d;]*m", "", str(error)).split("Arguments received by")[0]
    lines = [line.strip() for line in text.splitlines()]
    kept = [line for line in lines if line and not line.startswith("Exception encountered when")]
    return " ".join(kept)[:600] or type(error).__name__


def _only_result_on_stdout(active: bool) -> contextlib.AbstractContextManager[Any]:
    """Send progress to stderr where --json is given, so that stdout is a JSON document."""
    return contextlib.redirect_stdout(sys.stderr) if active else contextlib.nullcontext()


def _demo(options: argparse.Namespace) -> tuple[str, Any]:
    from tfprune.shell import demo

    summary = demo.run_demo(
        options.out,
        options.data,
        options.data_dir,
        options.epochs,
        options.dense_epochs,
        options.sparsity,
        options.seed,
    )
    written = "\n".join(f"  {Path(options.out) / name}" for name in demo.FILES)
    return f"\n{demo.table(summary)}\n\nWritten:\n{written}", summary


def _prune(options: argparse.Namespace) -> tuple[str, Any]:
    check_out(options.out, (".keras",))
    import keras

    import tfprune
    from tfprune.shell import workflow
    from tfprune.shell.data import load_data

    keras.utils.set_random_seed(options.seed)
    method = workflow.make_method(options.method, options.sparsity)
    model = workflow.read_model(options.model)
    if tfprune.is_pruned(model):
        model = tfprune.strip(model)
    data = load_data(options.data, options.data_dir, options.seed)
    workflow.check_fit(model, data)
    before = workflow.score(model.predict(data.test[0], verbose=0), data.test)
    pruned, _ = workflow.prune_and_train(
        model, method, data, options.epochs, options.batch_size, options.learning_rate
    )
    after = workflow.score(pruned.predict(data.test[0], verbose=0), data.test)
    plain = options.strip or options.shrink
    written = tfprune.strip(pruned, shrink=options.shrink) if plain else pruned
    workflow.save_model(written, options.out)
    report = tfprune.report(pruned)
    metric = next(iter(after))
    lines = f"\n{report}\n\ntest {metric}: {before[metric]:.4f} before, {after[metric]:.4f} pruned"
    data_out = {"path": str(options.out), "before": before, "after": after, **report.to_dict()}
    return f"{lines}\nWritten: {options.out}", data_out


def _report(options: argparse.Namespace) -> tuple[str, Any]:
    if options.model.suffix == ".tflite":
        return _report_tflite(options)
    for path, suffixes in ((options.html, (".html", ".htm")), (options.plot, _PLOTS)):
        if path is not None:
            check_out(path, suffixes)
    import tfprune
    from tfprune.shell.workflow import read_model

    before = None if options.before is None else read_model(options.before)
    report = tfprune.report(read_model(options.model), options.input_shape, before)
    if options.html is not None:
        report.to_html(options.html)
    if options.plot is not None:
        report.plot(options.plot, options.what)
    return str(report), report.to_dict()


def _report_tflite(options: argparse.Namespace) -> tuple[str, Any]:
    for name in ("html", "plot", "before", "input_shape"):
        if getattr(options, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} is for `.keras` files only.")
    from tfprune.export.inspect import describe

    description = describe.describe(options.model)
    return describe.table(description), description


def _export(options: argparse.Namespace) -> tuple[str, Any]:
    check_out(options.out, (".tflite",))
    from tfprune.export import Verification, export_tflite
    from tfprune.shell.workflow import quiet, read_model, representative

    model = read_model(options.model)
    data = options.representative and representative(options.representative, model)
    with quiet():
        result = export_tflite(
            model,
            options.out,
            target=options.target,
            storage=options.storage,
            representative_data=data,
            verification=Verification(arm=options.verify_arm),
        )
    return str(result), result.to_dict()


def _bench(options: argparse.Namespace) -> tuple[str, Any]:
    batch, threads, rounds = options.batch_size, options.threads, options.rounds
    if options.model.suffix == ".tflite":
        from tfprune.export.inspect import profile

        measured = profile.bench_tflite(options.model, batch, threads, rounds)
        return profile.table(measured), measured
    from tfprune.shell import bench
    from tfprune.shell.workflow import read_model

    read_model(options.model)  # says what is wrong with a file, before any process is started
    measured = bench.bench(options.model, batch or 1, threads, rounds)
    return bench.table(measured), measured


_PLOTS = (".png", ".svg", ".pdf")


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, where there are any."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.required or action.default in (None, False):
            return action.help
        return super()._get_help_string(action)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tfprune", description="Prune Keras models, and say what is left of them."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _demo_options(_command(commands, "demo", _demo, "the whole way on handwritten digits"))
    _prune_options(_command(commands, "prune", _prune, "prune and train a saved model"))
    _report_options(_command(commands, "report", _report, "what is left of a saved model"))
    _export_options(_command(commands, "export", _export, "write a saved model as .tflite"))
    _bench_options(_command(commands, "bench", _bench, "latency of a model and its layers"))
    return parser


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], tuple[str, Any]], what: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=what,
        description=what[0].upper() + what[1:] + ".",
        formatter_class=_Help,
    )
    parser.set_defaults(run=run)
    add = parser.add_argument
    add("--json", action="store_true", help="print the result as JSON; progress goes to stderr")
    add("--traceback", action="store_true", help="show where an error comes from")
    return parser


def _data_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data-dir", metavar="DIR", help="where tensorflow_datasets keeps its data")
    add("--seed", type=seed, default=0, help="of everything drawn at random")


def _demo_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", type=Path, default=Path("build/demo"), metavar="DIR", help="for what it writes")
    add("--data", choices=("digits", "mnist"), default="digits", help="digits need no download")
    add("--epochs", type=positive, help="of pruning (default: by data set)")
    add("--dense-epochs", type=positive, help="of the dense training before (default: by data set)")
    add("--sparsity", type=sparsity, default=0.96, help="fraction of the largest layer to prune")
    _data_options(parser)


def _prune_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", type=Path, help="a .keras file")
    add("--out", type=Path, required=True, help="the .keras file to write")
    add(
        "--method",
        choices=tuple(METHODS),
        default="surgery",
        help="how to prune",
    )
    what = "fraction of each layer to prune; with --method synaptic, of the net's connections"
    add("--sparsity", type=sparsity, default=0.9, help=what)
    add("--data", default="digits", help="digits, mnist, cifar10, or a .npz file with x, y")
    add("--epochs", type=positive, default=20, help="to train while pruning")
    add("--batch-size", type=positive, default=64, help="examples per step")
    add("--learning-rate", type=rate, default=1e-3, help="of Adam, at the start")
    add("--strip", action="store_true", help="write plain Keras layers, zeros baked in")
    add("--shrink", action="store_true", help="the same, without channels that nothing needs")
    _data_options(parser)


def _report_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", type=Path, help="a .keras file, or a .tflite file without further options")
    add("--html", type=Path, metavar="FILE", help="write a page too")
    add("--plot", type=Path, metavar="FILE", help="write a .png, .svg or .pdf plot too")
    add(
        "--what",
        choices=("density", "bands", "filters", "connections"),
        default="density",
        help="to draw in the plot",
    )
    add("--before", type=Path, metavar="FILE", help="the .keras file that pruning started from")
    add("--input-shape", type=shape, metavar="H,W,C", help="of one example, if not in the model")


def _export_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", type=Path, help="a .keras file")
    add("out", type=Path, help="the .tflite file to write")
    add("--target", choices=targets.NAMES, default="dense", help="form of the file")
    add(
        "--storage",
        choices=tuple(STORAGES),
        default="float32",
        help="of the weights; a dense int8 file computes in int8 and needs --representative",
    )
    add(
        "--representative",
        type=Path,
        metavar="FILE.npz",
        help="typical inputs: one array, `x`, `x_train`, or one per input by its name",
    )
    add(
        "--verify-arm",
        action="store_true",
        help="run the file on AArch64 too, with the command line in TFPRUNE_ARM_PYTHON",
    )


def _bench_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", type=Path, help="a .keras or .tflite file")
    add("--batch-size", type=positive, help="examples per call (default: 1, or the file's own)")
    add("--threads", type=shape, default=(1, 2), metavar="N,N", help="within an op, a run for each")
    add("--rounds", type=positive, default=30, help="calls that are timed")


if __name__ == "__main__":
    sys.exit(main())
