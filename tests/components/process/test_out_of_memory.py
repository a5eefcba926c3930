"""Out-of-memory errors are one line with advice; the messages are those of torch and NumPy."""

import numpy as np
import pytest
import torch

from components.process.out_of_memory import out_of_memory_message

CUDA = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 1 has a total capacity of 23.69 GiB of"
    " which 1.20 GiB is free. Including non-PyTorch memory, this process has 22.40 GiB memory in"
    " use. Of the allocated memory 21 GiB is allocated by PyTorch.\nSee documentation"
)


def test_training_says_what_was_asked_for_what_the_card_has_and_what_lowers_it():
    told = out_of_memory_message(CUDA, "train_san")
    assert told.startswith(
        "out of memory on the GPU; 2.50 GiB more were requested;"
        " GPU 1 has 23.69 GiB, of which 1.20 GiB are free; training needs less with fewer images"
    )
    for field in ("identities_per_batch", "texture_size", "decoder_plan=light", "precision"):
        assert field in told


def test_advice_is_that_of_the_step():
    told = out_of_memory_message(CUDA, "generate_textures")
    assert told.endswith("are free; on a GPU precision=float16 needs less")
    assert out_of_memory_message(CUDA, "extract_features").endswith("1.20 GiB are free")


def test_memory_of_the_cpu_is_reported_too():
    with pytest.raises(RuntimeError) as torch_error:
        torch.empty(2**58)
    with pytest.raises(MemoryError) as numpy_error:
        np.empty(2**58)
    for error, asked in ((torch_error.value, "GiB more"), (numpy_error.value, "more")):
        told = out_of_memory_message(error, "evaluate")
        assert told.startswith("out of memory; ")
        assert asked in told


def test_errors_of_the_driver_are_reported():
    told = out_of_memory_message(RuntimeError("CUDA error: out of memory\nCUDA kernel"), "x")
    assert told == "out of memory on the GPU"


def test_other_errors_are_defects():
    assert out_of_memory_message(RuntimeError("mat1 and mat2 shapes"), "train_san") is None
