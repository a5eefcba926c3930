"""What a training step, its data and inference cost beside what the released code does.

CPU time (user + system) of one thread; the sides of a ratio take turns in one process, after a
warm-up, and their medians are compared. Peak memory (VmHWM) is that of a process of its own that
does nothing else.
"""

import io
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from san_core.data.batches.augmentation import (
    BufferPool,
    TextureMirror,
    TextureTargets,
    augment_images,
    normalise_images,
    texture_targets,
)
from san_core.data.batches.cache import EncodedImage, cache_images, cache_textures
from san_core.data.batches.draws import draw_views
from san_core.images.pixels import encode_jpeg
from san_core.inference.textures import predict_textures
from san_core.model.encoder import to_channels_last
from san_core.model.onnx import export_generator
from san_core.model.san import build_network
from san_core.recipe import Recipe, recipe_with_overrides
from san_core.recipes import get_recipe
from san_core.synthesis.person.atlas import mirror_matrix
from san_core.training import objective
from san_core.training.distributed import ALONE
from san_core.training.finiteness import FiniteFlags
from san_core.training.optimisation import make_optimisation
from san_core.training.schedule import loss_weights
from tests.benchmarks import contention, official, step_cost
from tests.benchmarks.figure import Figure
from tests.benchmarks.host_waits import count_backward_waits, count_step_waits
from tests.benchmarks.measuring import peak_mib
from tests.benchmarks.resume import same_when_killed
from tests.tiny import run_all_steps

ROUNDS = 5  # of steps and of inference, which take seconds
DATA_ROUNDS = 25
CLASSES = 767  # identities of CUHK03's training split
BATCH_OVERRIDES = "identities_per_batch=2 images_per_identity=4"
LIGHT_OVERRIDES = "texture_size=64 decoder_plan=light"
GENERATOR_OVERRIDES = "image_height=128 image_width=64 texture_size=128"
DATA_IMAGES, INFERENCE_IMAGES = 64, 16  # images a batch of the data path, and of inference

# L_TR, forwards and backwards, on 128 people of 4 images each; the maps themselves are small.
L_TR_CODE = """
import torch
from san_core.training.losses import triplet_reid_constraint

torch.set_num_threads(1)

def take_loss(people):
    labels = torch.arange(people).repeat_interleave(4)
    maps = [torch.randn(len(labels), 4, 8, 4, requires_grad=True) for _ in range(4)]
    triplet_reid_constraint(maps, labels, margin=0.3).backward()

take_loss(4)
run = lambda: take_loss(128)
"""

Work = Callable[[], object]


def figures() -> Iterator[Figure]:
    """All figures of the group."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = _median_cpu_seconds({name: make(folder) for name, make in STEPS.items()})
        yield _ratio_figure(
            "joint_step_vs_official", seconds["official_step"], seconds["joint_step"]
        )
        yield _ratio_figure(
            "light_decoder_vs_baseline", seconds["light_step"], seconds["baseline_step"]
        )
        yield from (Figure(f"training.{n}_cpu_seconds", s, "s") for n, s in seconds.items())
        paths = {name: make(folder) for name, make in PATHS.items()}
        seconds = _median_cpu_seconds(paths, rounds=DATA_ROUNDS)
        yield _ratio_figure("data_path_vs_official", seconds["official_data"], seconds["data"])
        yield _ratio_figure(
            "data_path_light_vs_official", seconds["official_data"], seconds["light_data"]
        )
        yield _ratio_figure(
            "data_path_host_vs_official", seconds["official_data"], seconds["host_data"]
        )
        yield from (
            Figure(f"training.{n}_images_per_cpu_second", DATA_IMAGES / s, "1/s")
            for n, s in seconds.items()
        )
        seconds = _median_cpu_seconds({name: make(folder) for name, make in INFERENCE.items()})
        yield _ratio_figure(
            "infer_vs_official", seconds["official_inference"], seconds["inference"]
        )
        yield _ratio_figure(
            "infer_onnx_vs_official", seconds["official_inference"], seconds["onnx_inference"]
        )
        yield Figure(
            "training.infer_largest_difference", _largest_difference(folder), "levels of 255"
        )
    yield from step_cost.figures()
    yield from contention.figures()
    yield Figure("training.host_waits_per_step", _host_waits(), "waits")
    yield Figure("training.l_tr_512_mib", peak_mib(L_TR_CODE), "MiB")
    for name in VARIANTS:
        yield Figure(f"training.{name}_peak_mib", _peak_mib(name), "MiB")
    with tempfile.TemporaryDirectory() as name:
        equal = same_when_killed(run_all_steps(Path(name, "tiny")), Path(name))
        yield Figure("training.resume_bit_identical", float(equal), "1 if so")


def _host_waits() -> float:
    """The most waits of a step of the paper's recipe, its backward pass counted apart."""
    paper = get_recipe("cuhk03")
    small = recipe_with_overrides(paper, "identities_per_batch=2 images_per_identity=2")
    return max(map(len, count_step_waits(paper))) + len(count_backward_waits(small))


def _ratio_figure(name: str, above: float, below: float) -> Figure:
    return Figure(f"training.{name}", above / below, "ratio")


def _median_cpu_seconds(variants: Mapping[str, Work], *, rounds: int = ROUNDS) -> dict[str, float]:
    """The median CPU seconds of each, taken in turns after a warm-up."""
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, work in variants.items():
            started = time.process_time()
            work()
            if turn:
                taken[name].append(time.process_time() - started)
    return {name: statistics.median(times) for name, times in taken.items()}


def _peak_mib(variant: str) -> float:
    """MiB at the highest of a process that does one variant twice."""
    command = [sys.executable, "-m", "tests.benchmarks.groups.training", variant]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def _our_step(words: str, base: str = "cuhk03", batch: str = BATCH_OVERRIDES) -> Work:
    """Our step of a recipe on a fixed batch."""
    settings = recipe_with_overrides(get_recipe(base), f"pretrained=none {batch} {words}")
    model = build_network(settings, num_classes=CLASSES, seed=0).train()
    to_channels_last(model)
    steps = make_optimisation(model, settings, torch.amp.GradScaler("cpu", enabled=False))
    steps.set_progress(settings.warmup_epochs)
    batch, weights = _fixed_batch(settings), loss_weights(settings, settings.epochs)

    def work() -> None:
        output, flags = model(batch.images), FiniteFlags()
        terms = objective.loss_terms(output, batch, settings, ALONE, flags)
        steps.step(terms, weights, flags)

    return work


def demo_step() -> tuple[Work, int]:
    """A step of the network that `make demo` trains, in batches of its recipe, and their images."""
    return _our_step("", "demo", batch=""), get_recipe("demo").images_per_batch


def _official_step(_: Path) -> Work:
    settings = recipe_with_overrides(get_recipe("cuhk03"), f"pretrained=none {BATCH_OVERRIDES}")
    step = official.OfficialStep(build_network(settings, num_classes=CLASSES, seed=0))
    batch = _fixed_batch(settings)
    assert batch.labels is not None
    assert batch.targets is not None
    images = batch.images.contiguous()  # the released code's layout
    labels, textures = batch.labels, batch.targets.textures.contiguous()
    return lambda: step(images, labels, textures)


def _fixed_batch(settings: Recipe) -> objective.Batch:
    n = settings.images_per_batch
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (n, *settings.image_size, 3), np.uint8)
    labels = torch.arange(n) // settings.images_per_identity
    size = settings.texture_size
    textures = draw.integers(0, 256, (n, size, size, 3), np.uint8)
    kept = TextureTargets(
        normalise_images(torch.from_numpy(textures)), torch.ones(n, dtype=torch.bool)
    )
    return objective.Batch(normalise_images(torch.from_numpy(pixels)), labels, kept)


def _official_data(_: Path) -> Work:
    files = list(zip(_photograph_jpegs(260, 100), _photograph_jpegs(256, 256), strict=True))

    def work() -> None:
        samples = [
            official.augmented_sample(
                *(Image.open(io.BytesIO(data)).convert("RGB") for data in pair)
            )
            for pair in files
        ]
        for tensors in zip(*samples, strict=True):
            torch.stack(tensors)

    return work


def _our_data(folder: Path, words: str, *, device: bool = False) -> Work:
    """The epoch's share of our path: files have been decoded once into the memory map.

    With a `device` that augments, the processor does no more than pick the rows.
    """
    settings = recipe_with_overrides(get_recipe("cuhk03"), words)
    size, texels = settings.image_size, settings.texture_size
    files = _encoded_images(_photograph_jpegs(260, 100))
    images = cache_images(folder / f"images-{texels}.npy", files, count=DATA_IMAGES, size=size)
    files = _encoded_images(_photograph_jpegs(256, 256))
    textures = cache_textures(
        folder / f"textures-{texels}.npy", files, count=DATA_IMAGES, size=texels
    )
    mirror = TextureMirror.from_matrix(mirror_matrix(texels), "cpu")
    rows = np.random.default_rng(0).permutation(DATA_IMAGES)
    generator, room = torch.Generator().manual_seed(0), BufferPool()

    if device:
        return lambda: (images[rows], textures[rows])

    def work() -> None:
        draws = draw_views(len(rows), size, settings, generator=generator)
        augment_images(room.gather_rows("pixels", images, rows), draws, settings, pool=room)
        texels = room.gather_rows("texels", textures, rows)
        texture_targets(texels, draws.flipped, mirror=mirror, pool=room)

    return work


def _encoded_images(files: list[bytes]) -> list[EncodedImage]:
    return [EncodedImage(f"{i}", partial(bytes, data)) for i, data in enumerate(files)]


def _photograph_jpegs(height: int, width: int) -> list[bytes]:
    """Files that compress as photographs do: soft patches and a little noise."""
    draw = np.random.default_rng(0)
    made = []
    for _ in range(DATA_IMAGES):
        patches = Image.fromarray(draw.integers(0, 256, (height // 12, width // 12, 3), np.uint8))
        soft = np.asarray(patches.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        noisy = soft + draw.integers(-8, 9, soft.shape)
        made.append(encode_jpeg(noisy.clip(0, 255).astype(np.uint8), quality=92))
    return made


def _warmed_generator() -> tuple[Recipe, torch.nn.Module, np.ndarray]:
    """SAN-PG with statistics of the pictures it then paints."""
    settings = recipe_with_overrides(get_recipe("pit"), f"pretrained=none {GENERATOR_OVERRIDES}")
    model = build_network(settings, num_classes=0, seed=0)
    draw = np.random.default_rng(0)
    pictures = draw.integers(0, 256, (INFERENCE_IMAGES, *settings.image_size, 3), np.uint8)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # averages over all it has seen
        model.train()(normalise_images(torch.from_numpy(pictures)))
    return settings, model.eval(), pictures


def _official_inference(_: Path) -> Work:
    _, model, pictures = _warmed_generator()
    return lambda: np.stack([official.generate_one(model, picture) for picture in pictures])


def _inference(_: Path) -> Work:
    _, model, pictures = _warmed_generator()
    return lambda: predict_textures(model, pictures, device="cpu", batch_size=INFERENCE_IMAGES)


def _onnx_inference(folder: Path) -> Work:
    import onnxruntime

    settings, model, pictures = _warmed_generator()
    export_generator(folder / "generator.onnx", model, settings)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        folder / "generator.onnx", options, providers=["CPUExecutionProvider"]
    )

    def work() -> np.ndarray:
        (made,) = session.run(None, {"pixels": pictures})
        levels = ((made + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
        return np.ascontiguousarray(levels.transpose(0, 2, 3, 1))

    return work


def _largest_difference(folder: Path) -> float:
    """The largest difference of a texel's level between the three ways."""
    made = [np.asarray(make(folder)(), np.int16) for make in INFERENCE.values()]
    return float(max(np.abs(other - made[0]).max() for other in made[1:]))


STEPS: dict[str, Callable[[Path], Work]] = {
    "official_step": _official_step,
    "joint_step": lambda _: _our_step(""),
    "light_step": lambda _: _our_step(LIGHT_OVERRIDES),
    "baseline_step": lambda _: _our_step("", "cuhk03-baseline"),
}
PATHS: dict[str, Callable[[Path], Work]] = {
    "official_data": _official_data,
    "data": lambda folder: _our_data(folder, ""),
    "light_data": lambda folder: _our_data(folder, LIGHT_OVERRIDES),
    "host_data": lambda folder: _our_data(folder, "", device=True),
}
INFERENCE = {
    "official_inference": _official_inference,
    "inference": _inference,
    "onnx_inference": _onnx_inference,
}
VARIANTS = {**STEPS, **PATHS, **INFERENCE}


def main(variant: str) -> None:
    """Do one variant twice and print the peak of this process's memory in MiB."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        work = VARIANTS[variant](Path(folder))
        work()
        work()
    status = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in status if line.startswith("VmHWM:"))
    print(int(peak) / 1024)


if __name__ == "__main__":
    main(sys.argv[1])
