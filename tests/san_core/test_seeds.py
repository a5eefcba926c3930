import pytest

from san_core.seeds import check_seed


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_a_seed_of_63_bits_is_taken(seed):
    check_seed(seed)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_another_seed_is_refused_with_the_range(seed):
    with pytest.raises(ValueError, match=f"seed is {seed}: it must be 0 to 9223372036854775807"):
        check_seed(seed)
