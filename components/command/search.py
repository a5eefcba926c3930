"""`python -m components search`: the gallery pictures that are nearest to some queries.

python -m components search --model work/model --gallery photographs --query person.jpg
"""

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from components.command.code import code_fingerprint
from components.command.once import OnceParser, status_of
from components.process.gpu import hide_gpus
from components.process.messages import log_to_stderr, os_error_message, printable
from components.storage.outputs import check_replaceable, write_file
from components.storage.places import written_path

if TYPE_CHECKING:
    import argparse

    import numpy as np
    from numpy.typing import NDArray

    from components.inference.kept import KeptFeatures
    from components.inference.pictures import Pictures
    from components.inference.threshold import Threshold
    from san_core.data.batches.cache import EncodedImage
    from san_core.inference.network import Network
    from san_core.search.nearest import Nearest
    from san_core.search.page import SearchedQuery

TABLE_FILE, PAGE_FILE = "ranked.csv", "search.html"
COLUMNS = ("query", "rank", "image", "distance")
# On the page, which holds every picture in itself; the table has all.
QUERIES_SHOWN, FOUND_SHOWN = 100, 50
# What the code that embeds imports without effect on features: progress, threads, finding files.
_WITHOUT_EFFECT = (
    *("components.process", "san_core.checked_json", "san_core.disk"),
    *("san_core.data.batches.cache", "san_core.images.imageset"),
)


class _Queries(NamedTuple):
    """Queries of some places.

    Attributes:
        names: their names as people give them.
        files: of the first QUERIES_SHOWN at each place.
        features: (Q, D).
    """

    names: list[str]
    files: "list[EncodedImage]"
    features: "NDArray[np.float32]"


def search_parser() -> "argparse.ArgumentParser":
    """The parser of the command line."""
    parser = OnceParser(
        prog="python -m components search",
        description="Find the gallery pictures that are nearest to some queries. The features of"
        " the gallery are stored beside it, in GALLERY.features, and reused.",
    )
    add = parser.add_argument
    add("--model", metavar="PLACE", required=True, help="folder, ONNX file or URI of the encoder")
    add(
        "--gallery",
        metavar="PLACE",
        required=True,
        help="image set, folder of photographs, archive or URI to search in",
    )
    add(
        "--query",
        metavar="PLACE",
        required=True,
        nargs="+",
        help="pictures to search for: image files, or the same kinds of place as --gallery",
    )
    add(
        "--output",
        metavar="FOLDER",
        default="search",
        help="where ranked.csv and search.html are written (default: search)",
    )
    add(
        "--top",
        metavar="N",
        type=int,
        default=10,
        help="number of nearest pictures per query (default: 10)",
    )
    add(
        "--report",
        metavar="PLACE",
        default="",
        help="report of evaluate, for a suggested threshold (default: this model's own, if found)",
    )
    add(
        "--mirrored",
        choices=("auto", "true", "false"),
        default="auto",
        help="whether to average features with those of mirrored images (default: auto, as the"
        " model's recipe says)",
    )
    add(
        "--device",
        choices=("auto", "cpu"),
        default="auto",
        help="auto uses a GPU if there is one; cpu never does (default: auto)",
    )
    return parser


def run_search(words: Sequence[str]) -> int:
    """The command `search`; returns the exit status."""
    try:
        options = search_parser().parse_args(words)
    except SystemExit as stop:
        return status_of(stop)
    try:
        with log_to_stderr(), hide_gpus(options.device == "cpu"):
            _search(options)
    except ModuleNotFoundError as error:
        return _fail(f"needs the Python package {error.name}, which is not installed here")
    except BrokenPipeError:
        raise
    except OSError as error:
        return _fail(os_error_message(error))
    except ValueError as error:
        return _fail(str(error))
    except MemoryError as error:
        return _fail(f"not enough memory ({error}); a smaller --top or fewer queries need less")
    except KeyboardInterrupt:
        return _fail("stopped by Ctrl-C", status=130)
    return 0


def _search(options: "argparse.Namespace") -> None:
    """Search with these options, and write the results."""
    from components.inference.kept import features_folder, gallery_features
    from components.inference.networks import averages_mirrored, local_model, open_encoder
    from components.inference.pictures import open_pictures
    from components.inference.threshold import find_threshold
    from san_core.model.saved import fingerprint
    from san_core.search.nearest import nearest

    folder = written_path(options.output, option="--output", kind="folder")
    _check_output(folder)
    if options.top < 1:
        raise ValueError(f"--top {options.top}: give 1 or more")
    with local_model(options.model) as model, open_pictures(options.gallery) as gallery:
        network = open_encoder(model)
        mirrored = averages_mirrored(options.mirrored, network)
        threshold = find_threshold(network, model, options.report, mirrored=mirrored)
        with _open_queries(options.query, network, mirrored=mirrored) as queries:
            kept = gallery_features(
                gallery,
                network,
                fingerprint(model),
                code=embedding_code(is_onnx=network.is_onnx),
                mirrored=mirrored,
                under=features_folder(options.gallery),
            )
            found = nearest(
                queries.features, kept.features, count=options.top, metric=network.recipe.metric
            )
            shown = _shown_queries(queries, gallery, found, threshold)
            top = found.places.shape[1]
            page = _page(options, network, gallery, shown, threshold, len(queries.names), top)
            write_file(folder / TABLE_FILE, _table(queries.names, gallery.names, found))
            write_file(folder / PAGE_FILE, page)
    _tell(folder, len(queries.names), found, gallery, kept, threshold)


def embedding_code(*, is_onnx: bool) -> list[str]:
    """Digests of the code that turns a picture into features, and versions of its libraries.

    is_onnx: whether onnxruntime runs the network; else torch does.
    """
    from importlib import import_module

    network = "onnx_network" if is_onnx else "torch_network"
    modules = ("components.inference.embedding", f"san_core.inference.{network}")
    libraries = ("PIL", "onnxruntime") if is_onnx else ("PIL", "torch", "torchvision")
    return [
        *(code_fingerprint(one, with_pages=False, without=_WITHOUT_EFFECT) for one in modules),
        *(f"{name} {import_module(name).__version__}" for name in libraries),
    ]


def _check_output(folder: Path) -> None:
    """Check that the results replace at most those of an older search.

    Raises:
        ValueError: the folder holds files of the same names that no search wrote.
    """
    table = folder / TABLE_FILE
    check_replaceable(table, is_file=True)
    check_replaceable(folder / PAGE_FILE, is_file=True)
    if (folder / "report.json").exists():
        raise ValueError(
            f"--output {folder} holds report.json, which a search does not write; name another"
        )
    if table.exists():
        with table.open("rb") as file:
            found = file.readline(1000).strip()
        if found != ",".join(COLUMNS).encode():
            raise ValueError(f"{table} is not from a search; name another folder with --output")


@contextmanager
def _open_queries(
    places: Sequence[str], network: "Network", *, mirrored: bool
) -> "Iterator[_Queries]":
    """All queries at some places, embedded; their files can be read until the block ends."""
    from contextlib import ExitStack

    import numpy as np

    from components.inference.kept import embed_pictures
    from components.inference.pictures import open_pictures

    names: list[str] = []
    files: list[EncodedImage] = []
    features: list[NDArray[np.float32]] = []
    with ExitStack() as kept:
        for place in places:
            pictures = kept.enter_context(open_pictures(place))
            is_file = len(pictures.names) == 1 and pictures.names[0] == Path(place).name
            names += [place] if is_file else [f"{place.rstrip('/')}/{n}" for n in pictures.names]
            files += pictures.open_files(range(len(pictures.names))[:QUERIES_SHOWN])
            features += embed_pictures(pictures, network, mirrored=mirrored)
        yield _Queries(names, files, np.concatenate(features))


def _table(queries: Sequence[str], gallery: Sequence[str], found: "Nearest") -> str:
    """ranked.csv."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for name, places, distances in zip(queries, found.places, found.distances, strict=True):
        for rank, (place, distance) in enumerate(zip(places, distances, strict=True), 1):
            row = (printable(name), rank, printable(gallery[place]), f"{_shown(distance):.6f}")
            writer.writerow(row)
    return text.getvalue()


def _shown(distance: float) -> float:
    """A distance without what rounding leaves below 0."""
    return max(float(distance), 0.0)


def _shown_queries(
    queries: _Queries, gallery: "Pictures", found: "Nearest", threshold: "Threshold | None"
) -> "list[SearchedQuery]":
    """The first queries and their nearest pictures, as images."""
    from san_core.search.page import FoundPicture, SearchedQuery, thumbnail

    places = found.places[:QUERIES_SHOWN, :FOUND_SHOWN]
    wanted = sorted({int(place) for row in places for place in row})
    files = dict(zip(wanted, gallery.open_files(wanted), strict=True))
    made = {
        place: thumbnail(file.read(), name=file.name, alt=printable(file.name))
        for place, file in files.items()
    }
    shown = []
    for name, file, row, distances in zip(
        queries.names, queries.files, places, found.distances, strict=False
    ):
        nearest = [
            FoundPicture(
                printable(files[place].name),
                _shown(distance),
                made[place],
                None if threshold is None else bool(distance <= threshold.distance),
            )
            for place, distance in zip(row.tolist(), distances.tolist(), strict=False)
        ]
        image = thumbnail(file.read(), name=name, alt=printable(f"query {name}"))
        shown.append(SearchedQuery(printable(name), image, nearest))
    return shown


def _page(
    options: "argparse.Namespace",
    network: "Network",
    gallery: "Pictures",
    shown: "Sequence[SearchedQuery]",
    threshold: "Threshold | None",
    count: int,
    top: int,
) -> str:
    from san_core.search.page import search_page

    metric = {"cosine": "cosine, 1 - q.g / (|q| |g|)", "euclidean": "squared Euclidean"}
    facts = [
        ("gallery", f"{options.gallery}, {len(gallery.names):,} pictures"),
        ("model", f"{options.model} ({network.facts.get('recipe') or 'unknown recipe'})"),
        ("distance", metric[network.recipe.metric]),
    ]
    facts = [(name, printable(told)) for name, told in facts]
    words = "" if threshold is None else printable(threshold.in_words())
    return search_page(shown, facts=facts, threshold=words, left=count - len(shown), top=top)


def _tell(
    folder: Path,
    count: int,
    found: "Nearest",
    gallery: "Pictures",
    kept: "KeptFeatures",
    threshold: "Threshold | None",
) -> None:
    """Print where the results are."""
    told = f"{count} {'queries' if count > 1 else 'query'}, the {found.places.shape[1]} nearest of"
    _print_line(f"{folder / TABLE_FILE}: {told} {len(gallery.names):,} pictures each")
    _print_line(f"{folder / PAGE_FILE}: the same with pictures")
    how = "reused from" if kept.is_reused else "kept in"
    _print_line(f"features of the gallery: {how} {kept.folder}")
    if threshold is None:
        _print_line("no threshold is suggested: no report of this model was found (--report)")
    else:
        _print_line(f"suggested threshold {threshold.in_words()}")


def _print_line(line: str) -> None:
    sys.stdout.write(printable(line) + "\n")


def _fail(message: str, *, status: int = 1) -> int:
    """Print an error in one line; return the exit status."""
    sys.stderr.write(printable(f"search: {' '.join(message.split())}") + "\n")
    return status
