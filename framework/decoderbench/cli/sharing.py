"""Commands that show a trained recognizer or take it elsewhere: export, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from decoderbench.cli.common import Device, PluginFolders, PluginNames, err, load_registry, out
from decoderbench.cli.reading import (
    Best,
    CellId,
    Precision,
    Row,
    Source,
    check_precision,
    print_origin,
    refuse_two_choices,
)
from decoderbench.errors import ConfigError, DataError


def export(
    source: Source,
    onnx: Annotated[Path, typer.Option("--onnx", help="The file to write, as in reader.onnx.", show_default=False)],
    best: Best = False,
    row: Row = None,
    cell: CellId = None,
    images: Annotated[
        list[str] | None,
        typer.Option("--images", help="Images or folders to compare on. Repeatable.", show_default=False),
    ] = None,
    check: Annotated[int, typer.Option("--check", min=0, help="Number of drawn images to compare on.")] = 1000,
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
) -> None:
    """Write a trained recognizer as an ONNX graph that reads strings, if they are those of PyTorch.

    Compared are the test images that the results keep, those of --images, and drawn ones, at all widths.
    """
    from decoderbench.inference.image_files import find_image_files

    refuse_two_choices(best, row, cell)
    files = find_image_files(images).paths if images else ()
    registry = load_registry(plugin, plugins_dir)
    import torch

    from decoderbench.inference.export import export_onnx
    from decoderbench.inference.image_batches import decode_images
    from decoderbench.inference.loading import find_model, kept_images

    stored = find_model(source, row=row, cell=cell)
    reader = stored.build(registry, torch.device("cpu"), "float32")
    beam = stored.cell.evaluation.beam_size
    greedy = [f"note       the graph reads greedily; the row was tested with a beam of {beam}"] if beam > 1 else []
    print_origin(stored, registry, *greedy)
    kept = kept_images(source, reader.cell)
    given = list(decode_images([*kept, *files], reader.cell.image, ahead=64))
    for each in (each for each in given if each.problem):
        raise DataError(f"--images: {files[each.index - len(kept)]}: {each.problem}; nothing is written")
    found = export_onnx(reader, onnx, [each.pixels for each in given if each.pixels is not None], drawn=check)
    for line in found.lines():
        err.print(line, markup=False)
    out.print(f"onnx: {onnx}, {found.size / 1e6:.1f} MB; charset and image rules are in its metadata", markup=False)


def demo(
    source: Source,
    row: Annotated[
        list[str] | None,
        typer.Option("--row", help="Title or name of a row. Repeatable.  [default: all rows]", show_default=False),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 for any that is free.")] = 8765,
    device: Device = None,
    precision: Precision = None,
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
) -> None:
    """Serve a local page: drop an image on it, and see what every row reads, how sure it is, and where it looked.

    Each row reads with its model that is best on validation images. Ctrl-C ends it.
    """
    check_precision(precision)
    registry = load_registry(plugin, plugins_dir)
    from decoderbench.inference.choice import best_of_each_row
    from decoderbench.inference.demo import DemoRow, DemoServer
    from decoderbench.inference.loading import StoredModel, find_model
    from decoderbench.records.pack import is_pack
    from decoderbench.training.devices import choose_device, start_device

    where = choose_device(device)
    if is_pack(source):
        if row:
            raise ConfigError([f"--row: chooses among results, and {source} is one model; omit it"])
        stored = [find_model(source)]
    else:
        stored = [StoredModel.of_results(chosen) for chosen in best_of_each_row(source, row or [])]
    for each in stored:
        print_origin(each, registry)
    start_device(where)
    rows = [
        DemoRow(each.cell.name or each.cell.variant_title, each.build(registry, where, precision)) for each in stored
    ]
    with DemoServer(rows, stored[0].cell.experiment, port) as server:
        server.warm_up()
        out.print(f"{server.address}  {len(rows)} rows read; Ctrl-C ends it", markup=False)
        out.file.flush()
        server.serve_forever()
