"""Two ranks share the work of a check, and of training, and come to the result of one."""

from dataclasses import asdict, fields
from typing import Any

import numpy as np
import pytest
import torch

from lava_bridge import BridgeError, check_equivalence
from lava_bridge.report import EquivalenceReport, LayerComparison

from . import ranks


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[dict[str, Any]]:
    """What either rank of ``ranks.main`` found."""
    folder = tmp_path_factory.mktemp("ranks")
    np.save(folder / "x.npy", ranks.samples((3, 4), 5))
    for done in ranks.run_ranks("-m", "tests.distributed.ranks", cwd=folder):
        assert done.returncode == 0, done.stderr
    return [
        torch.load(folder / f"found{rank}.pt", weights_only=False) for rank in range(ranks.RANKS)
    ]


def assert_same_report(mine: EquivalenceReport, reference: EquivalenceReport) -> None:
    assert str(mine) == str(reference)
    for layer, expected in zip(mine.layers, reference.layers, strict=True):
        for field in fields(LayerComparison):
            a, b = getattr(layer, field.name), getattr(expected, field.name)
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, field.name


@pytest.mark.parametrize("name", ranks.CHECKS)
def test_all_ranks_get_the_report_that_one_process_makes_of_all_samples(found, name):
    x, options = ranks.CHECKS[name]
    reference = check_equivalence(*ranks.pair(), x, **options)
    assert all(layer.raster_a.any() for layer in reference.layers)
    assert reference.ok == (name == "uneven")
    if name == "mismatch in the second share":
        assert reference.layers[0].first.sample in (3, 4)
    for rank in found:
        assert_same_report(rank["reports"][name], reference)


def test_a_memory_mapped_input_gives_the_same_report(found):
    for rank in found:
        mapped, loaded = (
            rank["reports"][name] for name in ("mapped", "mismatch in the second share")
        )
        assert_same_report(mapped, loaded)


@pytest.mark.parametrize("name", ranks.FAILURES)
def test_an_error_on_one_rank_is_raised_on_all(found, name):
    x, options = ranks.FAILURES[name]
    with pytest.raises(BridgeError) as error:
        check_equivalence(*ranks.pair(), x, **options)
    whose = 1 if name == "in the second share" else 0  # of what both find, the first rank's
    for number, rank in enumerate(found):
        told = "" if number == whose else f"rank {whose}: "
        assert rank["errors"][name] == ("BridgeError", told + str(error.value))


def test_a_fault_on_one_rank_is_none_of_the_others_input(found):
    assert [rank["errors"]["a fault"][0] for rank in found] == ["RuntimeError", "ZeroDivisionError"]
    assert found[0]["errors"]["a fault"][1].startswith("rank 1: ")
    assert [rank["errors"]["both"][0] for rank in found] == ["AttributeError", "RuntimeError"]


def test_two_ranks_have_the_gradients_that_one_process_has_of_the_whole_batch(found):
    reference = ranks.gradients(ranks.mixed(), slice(None))
    assert all(gradient.any() for gradient in reference)
    for rank in found:
        for gradient, expected in zip(rank["gradients"], reference, strict=True):
            torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-7)


def test_without_a_process_group_a_distributed_check_says_how_to_get_one():
    a, b = ranks.pair()
    with pytest.raises(BridgeError, match="init_process_group") as error:
        check_equivalence(a, b, ranks.samples((), 2), distributed=True)
    assert "\n" not in str(error.value)


def test_merged_reports_do_not_hang_on_how_the_samples_are_shared_out():
    x = ranks.samples((2, 3, 5), 6)
    whole = check_equivalence(*ranks.pair(), x)
    for cut in range(1, 6):
        parts = [check_equivalence(*ranks.pair(), part) for part in (x[:, :cut], x[:, cut:])]
        before = [asdict(layer)["spikes"] for layer in parts[0].layers]
        assert_same_report(EquivalenceReport.merged(parts), whole)
        assert [layer.spikes for layer in parts[0].layers] == before
