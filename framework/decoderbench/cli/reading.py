"""Commands that read images with a trained recognizer: predict, evaluate."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decoderbench.cli.common import (
    Device,
    Overrides,
    PluginFolders,
    PluginNames,
    command,
    err,
    load_registry,
    merge_overrides,
    out,
)
from decoderbench.errors import ConfigError

if TYPE_CHECKING:
    from decoderbench.inference.confidence import Confidence
    from decoderbench.inference.loading import StoredModel
    from decoderbench.inference.trained import Reading, TrainedRecognizer
    from decoderbench.registry.registry import Registry

LEAST_RISK = 1e-6
"""The smallest share of wrong texts that can be asked for."""

MANY_FILES = 500
"""So many files are worth the start of processes that decode them."""

MAX_WORKERS = 1024
"""The most processes that decode; a million of them would take the machine down."""

_Row = dict[str, Any]
"""What is printed of an image, by the names of the columns of `--csv`."""

Source = Annotated[Path, typer.Argument(help="A folder that a run has written, or a pack.", show_default=False)]
Row = Annotated[
    str | None,
    typer.Option("--row", help="Title or name of a row; its model that is best on validation images."),
]
CellId = Annotated[str | None, typer.Option("--cell", help="Id of one cell, or its beginning.")]
Best = Annotated[
    bool, typer.Option("--best", help="The row that is best on validation images; so without --row and --cell too.")
]
Precision = Annotated[
    str | None,
    typer.Option("--precision", help="auto, float32 or bfloat16.  [default: that of the training]"),
]


def predict(
    source: Source,
    images: Annotated[
        list[str],
        typer.Argument(help="Images, folders of images, or - for paths on standard input.", show_default=False),
    ],
    best: Best = False,
    row: Row = None,
    cell: CellId = None,
    beam: Annotated[
        int | None, typer.Option("--beam", min=1, help="Width of the beam.  [default: that of the training]")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Images that are read at a time.")
    ] = None,
    reject: Annotated[
        float | None,
        typer.Option("--reject", help="Mark texts so that of the others at most this share is wrong, as in 0.01."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write a table to this file, and print nothing.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=0,
            max=MAX_WORKERS,
            help="Processes that decode; 0 for threads.  [default: half as many as cores; 0 for few images]",
        ),
    ] = None,
    device: Device = None,
    precision: Precision = None,
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
) -> None:
    """Read images with a trained recognizer: print each with its text and confidence, separated by tabs.

    The confidence is the probability that the decoder gives to its text, calibrated on validation images where that
    helps. An image that cannot be read is a line with the reason, and exit status 1.
    """
    from decoderbench.data.worker_processes import decoding_processes, usable_cores
    from decoderbench.inference.image_files import find_image_files

    refuse_two_choices(best, row, cell)
    if as_json and csv_file is not None:
        raise ConfigError(["--json and --csv: give one of them"])
    check_precision(precision)
    if reject is not None and not LEAST_RISK <= reject < 1:
        raise ConfigError([f"--reject {reject:g}: must lie between 0 and 1, as in 0.01 for 1 %"])
    if reject is not None and (beam is not None or precision is not None):
        raise ConfigError(
            ["--reject: holds for the beam and the precision of the training; omit --beam and --precision"]
        )
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # names of files may be any bytes
    if csv_file is not None and csv_file.exists() and not csv_file.is_file():
        raise ConfigError([f"--csv {csv_file}: is not a regular file; without --csv, lines go to standard output"])
    files = find_image_files(images, sys.stdin or ())  # None if it is closed
    if workers is None:
        workers = usable_cores() // 2 if len(files.paths) >= MANY_FILES else 0
    counts = _Counts()
    with decoding_processes(workers) as executor:  # before torch, which the processes do not need
        registry = load_registry(plugin, plugins_dir)
        from decoderbench.inference.loading import find_model
        from decoderbench.training.cores import leaving_cores
        from decoderbench.training.devices import choose_device, start_device

        stored, where = find_model(source, row=row, cell=cell), choose_device(device)
        if reject is not None and stored.cell.purpose == "refit":
            rule = "needs validation images that the model was not trained on, and this one was trained on all"
            raise ConfigError([f"--reject: {rule}; pack the model of a fold, without --refit"])
        start_device(where)
        reader = stored.build(registry, where, precision)
        rounded = _effect_of_bfloat16(source, stored, reader, registry) if precision == "bfloat16" else ""
        how = f"reads      in {reader.arithmetic}{rounded}", f"confidence {reader.confidence.describe()}"
        print_origin(stored, registry, *how, *filter(None, [files.note()]))
        least = None if reject is None else _least_log_prob(reader.confidence, reject)
        read = reader.transcribe_each(files.paths, beam_size=beam, batch_size=batch_size, executor=executor)
        pairs = zip(files.paths, read, strict=True)
        with leaving_cores(workers if executor else 0):
            _print_rows(counts.counting(_columns(path, reading, least) for path, reading in pairs), as_json, csv_file)
    if least is not None:
        err.print(f"{counts.rejected:,} of {counts.images:,} texts are rejected", markup=False)
    if counts.problems:
        err.print(f"{counts.problems:,} of {counts.images:,} images cannot be read; their lines say why", markup=False)
        raise typer.Exit(1)


def evaluate(
    source: Source,
    images: Annotated[
        Path,
        typer.Argument(
            help="A folder of labeled images, an LMDB, or a Hugging Face dataset on disk.", show_default=False
        ),
    ],
    row: Annotated[
        list[str] | None,
        typer.Option("--row", help="Title or name of a row. Repeatable.  [default: all rows]", show_default=False),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="train, val or test.  [default: all images]", show_default=False)
    ] = None,
    results: Annotated[
        Path | None, typer.Option("--results", help="Where results go.  [default: results/NAME-on-IMAGES]")
    ] = None,
    overrides: Overrides = None,
    device: Device = None,
    precision: Precision = None,
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
) -> None:
    """Read other labeled images with the trained rows of an experiment, and report as a run does.

    All seeds of a row are read with. Options of the data: --set dataset.KEY=VALUE. Labels with characters that the
    rows do not know count as wrong. Exit status 1 if an image cannot be read.
    """
    from decoderbench.data.dataset import SPLITS
    from decoderbench.records.results_directory import ResultsDirectory

    check_precision(precision)
    if split is not None and split not in SPLITS:
        raise ConfigError([f"--split {split}: must be one of {', '.join(SPLITS)}"])
    changes = merge_overrides(overrides, None, None)
    if others := sorted(changes.keys() - {"dataset"}):
        raise ConfigError([f"--set {others[0]}: only options of the dataset can be set; the models fix all others"])
    registry = load_registry(plugin, plugins_dir)
    from decoderbench.config.typed_values import value_of
    from decoderbench.inference.evaluation import OtherImages, TrainedModels, evaluate_models, name_of_evaluation
    from decoderbench.planning.dataset_path import open_dataset
    from decoderbench.report import markdown_table, write_files
    from decoderbench.training.devices import choose_device, start_device

    trained, where = TrainedModels.of(source, row or []), choose_device(device)
    _, dataset = open_dataset(images, registry, value_of(changes.get("dataset", {})))
    other = OtherImages.read(dataset, images, registry, split)
    name = name_of_evaluation(trained.experiment, other.name)
    directory = ResultsDirectory(results or Path("results") / name)
    directory.refuse_other_experiment(name)
    directory.begin()
    start_device(where)
    analysis, unread = evaluate_models(
        trained, other, directory, registry, experiment=name, device=where, precision=precision, command=command()
    )
    out.print(markdown_table(analysis), markup=False)
    page = write_files(analysis, command=command())
    out.print(f"report: {page} and report.html", markup=False)
    if unread:
        raise typer.Exit(1)


def print_origin(stored: StoredModel, registry: Registry, *further: str) -> None:
    """Say which model reads, and what has changed since its training."""
    for line in (*stored.origin, *further, *(f"note       {note}" for note in stored.changed_sources(registry))):
        err.print(line, markup=False)


def _effect_of_bfloat16(source: Path, stored: StoredModel, reader: TrainedRecognizer, registry: Registry) -> str:
    """Return how many test images that the results keep are read otherwise than in float32; empty if they keep none."""
    from decoderbench.inference.loading import kept_images

    images = kept_images(source, stored.cell)
    if not images:
        return ""
    exact = stored.build(registry, reader.device, "float32").transcribe(images)
    pairs = zip(reader.transcribe(images), exact, strict=True)
    differing = sum(one.text != other.text for one, other in pairs)
    return f"; {differing:,} of {len(images):,} test images that the results keep are read otherwise than in float32"


class _Counts:
    """How many images were read, how many of them cannot be, and how many texts are rejected."""

    def __init__(self) -> None:
        self.images = self.problems = self.rejected = 0

    def counting(self, rows: Iterable[_Row]) -> Iterator[_Row]:
        for row in rows:
            self.images += 1
            self.problems += bool(row["problem"])
            self.rejected += bool(row.get("rejected"))
            yield row


def _least_log_prob(confidence: Confidence, risk: float) -> float:
    """Return the log p below which texts are rejected, and say what that means."""
    kept = confidence.keep(risk)
    of_all = f"{kept.images:,} of {len(confidence.right):,} validation images are above, {kept.wrong:,} of them wrong"
    bound = f"at most {100 * kept.bound:.2f} % of such texts are wrong, with 95 % confidence"
    err.print(f"reject     confidence below {confidence(kept.least):.4f}: {of_all}; {bound}", markup=False)
    err.print("           the same images chose the weights, so of new ones slightly more may be wrong", markup=False)
    return kept.least


def refuse_two_choices(best: bool, row: str | None, cell: str | None) -> None:
    """Raise `ConfigError` if two options choose a model."""
    given = [name for name, value in (("--best", best or None), ("--row", row), ("--cell", cell)) if value is not None]
    if len(given) > 1:
        raise ConfigError([f"{' and '.join(given)}: each chooses a model; give one of them"])


def check_precision(precision: str | None) -> None:
    """Raise `ConfigError` for a precision that does not exist."""
    known = ("auto", "float32", "bfloat16")
    if precision is not None and precision not in known:
        raise ConfigError([f"--precision {precision}: must be one of {', '.join(known)}"])


def _columns(path: Path, reading: Reading, least: float | None) -> _Row:
    """Return what is printed of an image, by name; `rejected` only if texts below a log p are."""
    sure = reading.log_prob is not None and least is not None and reading.log_prob >= least
    return {
        "image": str(path),
        "text": reading.text,
        "confidence": reading.confidence,
        "log_prob": reading.log_prob,
        **({} if least is None else {"rejected": not reading.problem and not sure}),
        "problem": reading.problem,
        "note": reading.note,
    }


def _as_line(row: _Row) -> str:
    from decoderbench.cli.terminal import escape_unsafe

    confidence = "" if row["confidence"] is None else f"{row['confidence']:.4f}"
    remark = "; ".join(filter(None, ["rejected" if row.get("rejected") else "", row["problem"], row["note"]]))
    texts = [row["image"], row["text"] or "", confidence, *filter(None, [remark])]
    return escape_unsafe("\t".join(text.replace("\t", "\\t").replace("\n", "\\n") for text in texts))


def _print_rows(rows: Iterable[_Row], as_json: bool, csv_file: Path | None) -> None:
    if csv_file is not None:
        _write_csv(csv_file, rows)
        return
    for columns in rows:
        out.write(f"{json.dumps(columns) if as_json else _as_line(columns)}\n")


def _write_csv(file: Path, rows: Iterable[_Row]) -> None:
    from decoderbench.files.storage import write_atomically

    text = io.StringIO(newline="")
    writer: csv.DictWriter[str] | None = None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(text, row, lineterminator="\n")
            writer.writeheader()
        writer.writerow(row)
    write_atomically(file, text.getvalue().encode(errors="backslashreplace"))
