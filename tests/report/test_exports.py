"""The page's tables of exported files: a line per file, a table of layers per file."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import keras
import pytest

from tfprune.export.flatbuffer.layer_form import LayerForm
from tfprune.export.result import ExportResult
from tfprune.report import report
from tfprune.report.page import exports

RESULT = ExportResult(
    path="/secret/folder/small.tflite",
    target="auto",
    storage="int8",
    bytes=24344,
    gzip_bytes=11234,
    max_relative_error=3.2e-3,
    rms_relative_error=1.5e-3,
    tolerance=0.05,
    agreement=0.99842,
    samples_checked=64,
    reference_samples_checked=16,
    data_source="samples",
    inputs={"x": (None, 28, 28, 1)},
    outputs=("y",),
    ops={"CONV_2D": 2, "SOFTMAX": 1},
    notes=("open sizes were checked at 1",),
    layers=(
        LayerForm("conv", "dense", 0.6, 2000, 2000, "too small to gain"),
        LayerForm("<fc>", "sparse", 0.05, 1600000, 130000),
    ),
)
HEAD = [
    *("file", "target", "storage", "bytes", "gzip bytes", "largest error", "agreement"),
    *("samples checked", "operations"),
]
LINE = [
    *("small.tflite", "auto", "int8", "24,344", "11,234", "0.0032 (limit 0.05)", "0.9984"),
    *("64", "CONV_2D: 2, SOFTMAX: 1"),
]
LAYERS = [
    ["layer", "form", "density", "dense bytes", "stored bytes", "note"],
    ["conv", "dense", "0.6000", "2,000", "2,000", "too small to gain"],
    ["&lt;fc&gt;", "sparse", "0.0500", "1,600,000", "130,000", ""],
]


def cells(table: str) -> list[list[str]]:
    """The cells of an HTML table."""
    lines = re.findall("<tr>(.*?)</tr>", table)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line) for line in lines]


def page(export: Any, **settings: Any) -> str:
    pytest.importorskip("matplotlib")
    pages = pytest.importorskip("tfprune.report.page.page")
    pytest.importorskip("jinja2")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    return pages.page(report(model), export=export, **settings)


@pytest.mark.parametrize("given", [RESULT, RESULT.to_dict(), [RESULT], (RESULT.to_dict(),)])
def test_a_line_for_a_file_and_a_table_of_its_layers(given: Any) -> None:
    (result,) = exports.results(given)
    assert cells(exports.file_table([result])) == [HEAD, LINE]
    assert cells(exports.layer_table(result)) == LAYERS
    assert exports.notes(result) == ["small.tflite: open sizes were checked at 1"]


def test_numerals_stand_right_and_text_stands_left() -> None:
    (result,) = exports.results(RESULT)
    for table, head in (
        (exports.file_table([result]), HEAD),
        (exports.layer_table(result), LAYERS[0]),
    ):
        right = [title for kind, title in re.findall("<th( class=n)?>(.*?)<", table) if kind]
        texts = {"file", "target", "storage", "operations", "layer", "form", "note"}
        assert right == [title for title in head if title not in texts]


def test_files_beside_each_other() -> None:
    dense = dataclasses.replace(RESULT, path="dense.tflite", agreement=None, layers=(), notes=())
    files = exports.results([RESULT, dense.to_dict(), {"path": "other", "seconds": 1.25}])
    head, *lines = cells(exports.file_table(files))
    assert head == [*HEAD[:-1], "seconds", "operations"]
    assert [line[0] for line in lines] == ["small.tflite", "dense.tflite", "other"]
    assert [line[6] for line in lines] == ["0.9984", "", ""]
    assert [line[-2] for line in lines] == ["", "", "1.25"]
    assert [exports.layer_table(result) == "" for result in files] == [False, True, True]


def test_columns_that_nobody_fills_are_left_out() -> None:
    files = exports.results({"path": "a/m.tflite", "bytes": 5, "arm_samples_checked": 3})
    assert cells(exports.file_table(files)) == [["file", "bytes"], ["m.tflite", "5"]]


def test_the_page_shows_tables_and_no_python() -> None:
    text = page([RESULT, RESULT.to_dict() | {"path": "second.tflite"}])
    start = text.index("<h2>Exported files</h2>")
    section = text[start : text.index("</section>", start)]
    assert section.count("<table>") == 3
    assert "<h3>Layers of small.tflite</h3>" in section
    assert "<h3>Layers of second.tflite</h3>" in section
    assert "second.tflite: open sizes were checked at 1" in section
    assert not re.search(r"[{}\[\]']|LayerForm|secret|None", section)


def test_layers_in_other_shapes() -> None:
    result = {"layers": [LayerForm("a", "dense", 1.0, 4, 4), {"name": "b"}, "c"]}
    assert cells(exports.layer_table(result)) == [
        LAYERS[0][:5],
        ["a", "dense", "1.0000", "4", "4"],
        ["b", "", "", "", ""],
        ["c", "", "", "", ""],
    ]


@pytest.mark.parametrize("given", ["m.tflite", [RESULT, 5]])
def test_other_things_are_refused(given: Any) -> None:
    with pytest.raises(TypeError, match=r"`export` must be what .*Received: ('m.tflite'|5)"):
        exports.results(given)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "True"),
        (1234567, "1,234,567"),
        (0.123456, "0.1235"),
        ([1, {"a": 2.0}], "1, a: 2"),
    ],
)
def test_values_in_short(value: Any, text: str) -> None:
    assert exports.value_text(value) == text
