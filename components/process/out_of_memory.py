"""The message of a step without memory: the size requested, the capacity, and how to need less."""

import re

_TRAINING = (
    "training needs less with fewer images per batch (identities_per_batch, images_per_identity,"
    " batch_size), smaller sizes (image_height, image_width, texture_size), decoder_plan=light or,"
    " on a GPU, precision=bfloat16"
)
# By step; the batches of the others are fixed and small.
ADVICE = {
    "train_san": _TRAINING,
    "train_san_pg": _TRAINING,
    "generate_textures": "on a GPU precision=float16 needs less",
}
_ASKED = re.compile(r"(?:[Tt]ried to allocate|Unable to allocate) ([\d.]+ (?:bytes|\w+iB))")
_CAPACITY = re.compile(r"(GPU \d+) has a total capacity of ([\d.]+ \wiB) of which ([\d.]+ \wiB)")


def out_of_memory_message(error: BaseException, step: str) -> str | None:
    """The message of an out-of-memory error, in one line; None for other errors."""
    said = str(error)
    on_gpu = type(error).__name__ == "OutOfMemoryError" or "CUDA error: out of memory" in said
    if not on_gpu and not isinstance(error, MemoryError) and "can't allocate memory" not in said:
        return None
    asked, card = _ASKED.search(said), _CAPACITY.search(said)
    parts = [f"out of memory{' on the GPU' if on_gpu else ''}"]
    if asked:
        parts.append(f"{_readable(asked[1])} more were requested")
    if card:
        parts.append(f"{card[1]} has {card[2]}, of which {card[3]} are free")
    if step in ADVICE:
        parts.append(ADVICE[step])
    return "; ".join(parts)


def _readable(size: str) -> str:
    """A size as torch wrote it, but bytes in GiB."""
    number, unit = size.split()
    return f"{int(number) / 2**30:.2f} GiB" if unit == "bytes" else size
