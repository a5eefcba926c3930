import pytest
import torch

from san_core.training.precision import (
    autocast_type,
    convolution_arithmetic,
    repeatable_arithmetic,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def processor(monkeypatch):
    """Sets the instructions this processor is said to have."""

    def has(**instructions):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)

    return has


@pytest.fixture
def gpu(monkeypatch):
    """Sets whether the GPU computes in bfloat16 natively; every GPU emulates it."""

    def has(*, bfloat16):
        def supported(including_emulation=True):
            return including_emulation or bfloat16

        monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)

    return has


def test_gpus_compute_in_bfloat16_only_where_it_is_not_emulated(gpu):
    gpu(bfloat16=False)
    assert autocast_type("auto", CUDA) is torch.float16
    gpu(bfloat16=True)
    assert autocast_type("auto", CUDA) is torch.bfloat16
    assert autocast_type("float16", CUDA) is torch.float16
    assert autocast_type("float32", CUDA) is None


@pytest.mark.parametrize("instructions", ["avx512_bf16", "amx_bf16"])
def test_a_processor_computes_in_bfloat16_when_asked_and_able(processor, instructions):
    processor(**{instructions: True})
    assert autocast_type("bfloat16", CPU) is torch.bfloat16
    assert autocast_type("auto", CPU) is None


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_emulated_precisions_are_refused(processor, gpu, precision):
    processor(avx2=True, avx512_bf16=False)
    message = f"precision {precision} is not native on this cpu and slower .*; native are float32"
    with pytest.raises(ValueError, match=message):
        autocast_type(precision, CPU)
    gpu(bfloat16=False)
    with pytest.raises(ValueError, match=r"this cuda and slower .*; native are float16, float32"):
        autocast_type("bfloat16", CUDA)


def test_an_unknown_precision_lists_what_exists():
    message = "precision 'half' is not one of auto, float32, tf32, bfloat16, float16"
    with pytest.raises(ValueError, match=message):
        autocast_type("half", CPU)


def arithmetic_of_float32():
    return torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision


@pytest.mark.parametrize(
    ("precision", "convolutions"),
    [("float32", "ieee"), ("tf32", "tf32"), ("bfloat16", "ieee"), ("auto", "ieee")],
)
def test_float32_is_tf32_in_convolutions_alone_and_when_asked(precision, convolutions):
    before = arithmetic_of_float32()
    assert before[0] == "tf32"  # torch's own choice
    with convolution_arithmetic(precision, CUDA):
        assert arithmetic_of_float32() == (convolutions, "ieee")
    assert arithmetic_of_float32() == before


def test_a_processor_knows_no_tf32(gpu):
    with pytest.raises(ValueError, match="precision tf32 is not native on this cpu"):
        autocast_type("tf32", CPU)
    gpu(bfloat16=False)
    with pytest.raises(ValueError, match="precision tf32 is not native on this cuda"):
        autocast_type("tf32", CUDA)
    gpu(bfloat16=True)
    assert autocast_type("tf32", CUDA) is None


def deterministic_settings():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
        torch.utils.deterministic.fill_uninitialized_memory,
    )


def test_sums_have_one_order_within_the_block_alone(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = deterministic_settings()
    with repeatable_arithmetic(wanted=False):
        assert deterministic_settings() == before
    with repeatable_arithmetic(wanted=True):
        assert deterministic_settings() == (True, False, False)
    assert deterministic_settings() == before


def test_nondeterministic_operations_of_torch_are_one_line():
    said = (
        "reflection_pad2d_backward_cuda does not have a deterministic implementation, but you set"
        " 'torch.use_deterministic_algorithms(True)'.\nYou can turn off determinism"
    )
    with (
        pytest.raises(ValueError, match=r"says deterministic=true, but torch: reflection\w+ does"),
        repeatable_arithmetic(wanted=True),
    ):
        raise RuntimeError(said)
    assert not torch.are_deterministic_algorithms_enabled()
