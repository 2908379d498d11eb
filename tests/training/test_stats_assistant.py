"""The statistics and the assistant count as lava's."""

import logging

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch.utils.data import DataLoader

from lava_bridge.errors import BridgeError
from lava_bridge.slayer import classifier, utils

NAMES = ("training", "validation", "testing")
epochs = st.lists(
    st.tuples(st.integers(1, 9), st.floats(0, 100), st.integers(0, 9)), min_size=1, max_size=4
)


def count(stat, samples, loss, correct):
    stat.num_samples, stat.loss_sum, stat.correct_samples = samples, loss, min(correct, samples)


def assert_same_stat(mine, theirs):
    for name in vars(theirs):
        assert getattr(mine, name) == getattr(theirs, name), name
    for name in ("loss", "accuracy", "valid_loss_log", "valid_accuracy_log"):
        assert getattr(mine, name) == getattr(theirs, name), name


@given(epochs, st.sampled_from([(), ("err", "(V)", "hits", "%")]))
def test_the_counts_of_epochs_are_lavas(lava, epochs, names):
    mine, theirs = (which.LearningStats(*names) for which in (utils, lava.utils))
    for number, epoch in enumerate(epochs):
        for stats in (mine, theirs):
            for name in NAMES[: 1 + number % 3] if number == 0 else NAMES:
                count(getattr(stats, name), *epoch)
        assert str(mine) == str(theirs)
        for name in NAMES:
            if getattr(theirs, name).num_samples:
                mine_, theirs_ = getattr(mine, name), getattr(theirs, name)
                for stat in (mine_, theirs_):
                    stat.update()
                assert_same_stat(mine_, theirs_)
                assert str(mine_) == str(theirs_)


@pytest.mark.parametrize("loss", [None, float("nan")])
def test_an_epoch_without_samples_or_of_nan_is_never_the_best(loss):
    """lava calls a first one the best, and fails at a later one."""
    stat = utils.LearningStat()
    for best in (False, True, False):
        if best:
            count(stat, 2, 3.0, 1)
        elif loss is not None:
            count(stat, 2, loss, 0)
        stat.update()
        stat.reset()
        assert stat.best_loss is best
    assert (stat.min_loss, len(stat.loss_log)) == (1.5, 3)
    assert stat.max_accuracy == 0.5


@pytest.mark.parametrize("samples", [1, 10, 999, 1000, 1001])
def test_the_printed_lines_are_lavas(lava, capsys, samples):
    loader = DataLoader(list(range(samples)), batch_size=min(samples, 9))
    printed = []
    for which in (lava.utils, utils):
        stats = which.LearningStats()
        count(stats.training, 4, 2.0, 3)
        stats.print(3)
        count(stats.testing, 4, 2.0, 3)
        stats.print(3, iter=1, time_elapsed=0.5, header=["one", 2])
        stats.update()
        stats.print(4, iter=1, dataloader=loader)
        stats.print(4, dataloader=loader)
        stats.new_line()
        stats.print(5)
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


def logged(which, *logs):
    stats = which.LearningStats("err", "(V)")
    for name, log in zip(NAMES, logs, strict=True):
        stat = getattr(stats, name)
        stat.loss_log, stat.accuracy_log = list(log), [v and v / 100 for v in log]
    return stats


values = st.one_of(st.none(), st.integers(1, 10**6).map(lambda n: n / 1000))


@given(
    st.integers(0, 4).flatmap(lambda n: st.tuples(*[st.lists(values, min_size=n, max_size=n)] * 3))
)
def test_what_is_saved_is_a_column_for_each_statistic_and_a_row_for_each_epoch(
    tmp_path_factory, logs
):
    folder = tmp_path_factory.getbasetemp()
    saved = logged(utils, *logs)
    saved.save(str(folder))
    header, *rows = (folder / "err.txt").read_text().splitlines()
    named = zip(("Train", "Valid", "Test"), logs, strict=True)
    written = [(name, log) for name, log in named if any(v is not None for v in log)]
    assert header.removeprefix("#").split() == [name for name, _ in written]
    for epoch, row in enumerate(rows):
        expected = [np.nan if log[epoch] is None else log[epoch] for _, log in written]
        assert np.array_equal([float(v) for v in row.split()], expected, equal_nan=True)
    assert len(rows) == (len(logs[0]) if written else 0)

    loaded = logged(utils, [5.0], [None], [1.0])
    loaded.load(str(folder))
    for name, log in zip(NAMES, logs, strict=True):
        stat = getattr(loaded, name)
        assert stat.loss_log == (log if written else [])
        assert stat.min_loss == min((v for v in log if v is not None), default=None)
        known = [v for v in getattr(saved, name).accuracy_log if v is not None]
        best = pytest.approx(max(known), abs=1e-6) if known and written else None
        assert stat.max_accuracy == best


def test_the_files_are_lavas_and_in_the_folder(lava, tmp_path):
    logs = [1.0, 0.5], [None, None], [3.25, 2.0]
    logged(lava.utils, *logs).save(f"{tmp_path}/lava_")
    logged(utils, *logs).save(f"{tmp_path}/our_")
    logged(utils, *logs).save(str(tmp_path))
    for name in ("err.txt", "accuracy.txt"):
        written = (tmp_path / f"lava_{name}").read_bytes()
        assert (tmp_path / f"our_{name}").read_bytes() == written
        assert (tmp_path / name).read_bytes() == written


def drawn(figure):
    axes = plt.figure(figure).axes[0]
    lines = [(line.get_label(), line.get_ydata().astype(float)) for line in axes.lines]
    return axes.get_ylabel(), axes.get_xlabel(), axes.get_yscale(), lines


@pytest.mark.filterwarnings("ignore:No artists")
def test_the_plots_are_lavas(lava, tmp_path):
    logs = [1.0, 0.5], [None, None], [None, 2.0]
    logged(lava.utils, *logs).plot(figures=(11, 12))
    logged(utils, *logs).plot(figures=(21, 22), figsize=(3, 2), path=str(tmp_path))
    for mine, theirs in ((21, 11), (22, 12)):
        *texts, lines = drawn(mine)
        *reference, expected = drawn(theirs)
        assert texts == reference
        assert [label for label, _ in lines] == [label for label, _ in expected]
        for (_, ours), (_, lavas) in zip(lines, expected, strict=True):
            assert np.array_equal(ours, lavas, equal_nan=True)
    assert {path.name for path in tmp_path.iterdir()} == {"loss.png", "accuracy.png"}
    plt.close("all")
    utils.LearningStats().plot()
    assert not plt.get_fignums()


class Net(torch.nn.Linear):
    """Gives what the Assistant is told to expect."""

    def __init__(self, extras):
        torch.manual_seed(1)
        super().__init__(4, 3)
        self.extras = extras

    def forward(self, x):
        self.ran_in_training = self.training
        y = super().forward(x)
        extra = {"net_loss": (y**2).mean(), "count": torch.tensor([5.0])}
        return (y, *(extra[name] for name in self.extras)) if self.extras else y


EXTRAS = [[], ["net_loss"], ["count"], ["net_loss", "count"]]


@pytest.mark.parametrize("extras", EXTRAS)
@pytest.mark.parametrize("classify", [False, True])
def test_a_train_and_a_test_step_are_lavas(lava, extras, classify):
    x, label = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    results = []
    for which in (utils, lava.utils):
        net, stats = Net(extras), which.LearningStats()
        assistant = which.Assistant(
            net,
            torch.nn.functional.cross_entropy,
            torch.optim.Adam(net.parameters(), lr=0.1),
            stats,
            (lambda y: y.argmax(1)) if classify else None,
            count_log="count" in extras,
            lam=0.3 if "net_loss" in extras else None,
        )
        assert assistant.device is None
        outputs = [assistant.train(x, label) for _ in range(3)]
        assert net.ran_in_training
        outputs.append(assistant.test(x, label))
        assert not net.ran_in_training
        assert assistant.device == torch.device("cpu")
        results.append((outputs, stats, net))
    (mine, stats, net), (theirs, their_stats, their_net) = results
    for output, reference in zip(mine, theirs, strict=True):
        both = (output, reference) if "count" in extras else ((output,), (reference,))
        assert all(torch.equal(a, b) for a, b in zip(*both, strict=True))
    assert torch.equal(net.weight, their_net.weight)
    for name in NAMES:
        assert_same_stat(getattr(stats, name), getattr(their_stats, name))


@pytest.mark.parametrize("extras", EXTRAS)
def test_a_validation_is_a_test_counted_as_validation(extras):
    """lava's asks for net.device, which nets don't have."""
    x, label = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    net, stats = Net(extras), utils.LearningStats()
    error = torch.nn.functional.cross_entropy
    lam = 0.3 if "net_loss" in extras else None
    assistant = utils.Assistant(
        net, error, None, stats, lambda y: y.argmax(1), "count" in extras, lam
    )
    valid, test = assistant.valid(x, label), assistant.test(x, label)
    outputs = (valid[0], test[0]) if "count" in extras else (valid, test)
    assert torch.equal(*outputs)
    assert not outputs[0].requires_grad
    assert not net.ran_in_training
    assert (stats.validation.num_samples, stats.training.num_samples) == (6, 0)
    assert_same_stat(stats.validation, stats.testing)


def test_a_net_without_parameters_and_a_regression_without_stats():
    assistant = utils.Assistant(torch.nn.ReLU(), torch.nn.functional.mse_loss, None)
    assert assistant.test(-torch.ones(2, 3), torch.ones(2, 3)).tolist() == [[0] * 3] * 2


def test_a_window_classifies_each_step():
    window = classifier.MovingWindow(2)
    stats = utils.LearningStats()
    x = torch.tensor([[[1.0, 1, 0, 0], [0, 0, 1, 1]]])
    assistant = utils.Assistant(torch.nn.Identity(), lambda y, _: y.sum(), None, stats, window)
    assistant.test(x, window(x))
    assert stats.testing.correct_samples == 4


def test_the_learning_rate_is_reduced_and_logged(caplog, capsys):
    net = Net([])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    assistant = utils.Assistant(net, None, optimizer)
    with caplog.at_level(logging.INFO):
        assistant.reduce_lr(2)
        assistant.reduce_lr()
    assert optimizer.param_groups[0]["lr"] == 0.25 / (10 / 3)
    assert "0.5" in caplog.text
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("extras", "told"), [([], ["lam"]), (["net_loss"], ["lam", "count"]), ([], ["count"])]
)
def test_a_net_that_returns_something_else_is_refused(extras, told):
    net = Net(extras)
    assistant = utils.Assistant(
        net,
        torch.nn.functional.mse_loss,
        None,
        count_log="count" in told,
        lam=1.0 if "lam" in told else None,
    )
    with pytest.raises(BridgeError, match="expected the net to return output, "):
        assistant.test(torch.randn(6, 4), torch.randn(6, 3))
