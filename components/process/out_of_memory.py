"""What a step says when memory is full: what was asked for, what there is, what lowers it."""

import re

_TRAINING = (
    "less is needed with fewer images a batch (identities_per_batch, images_per_identity,"
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
    """Why a step ends for want of memory, in one line; None for errors of another kind."""
    said = str(error)
    on_gpu = type(error).__name__ == "OutOfMemoryError" or "CUDA error: out of memory" in said
    if not on_gpu and not isinstance(error, MemoryError) and "can't allocate memory" not in said:
        return None
    asked, card = _ASKED.search(said), _CAPACITY.search(said)
    parts = [f"out of memory {'on the GPU' if on_gpu else 'on the processor'}"]
    if asked:
        parts.append(f"{_readable(asked[1])} more were asked for")
    if card:
        parts.append(f"{card[1]} has {card[2]}, of which {card[3]} are free")
    if step in ADVICE:
        parts.append(ADVICE[step])
    return "; ".join(parts)


def _readable(size: str) -> str:
    """A size as it was said, but bytes in GiB."""
    number, unit = size.split()
    return f"{int(number) / 2**30:.2f} GiB" if unit == "bytes" else size
