"""The command line: ``lava-bridge convert | verify | run | inspect``."""

import io
import sys
import traceback
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np

from . import __version__
from .console import OutputFile, Shape, refuse_overwriting, show
from .errors import BridgeError
from .given import build_net, load_array
from .progress import is_first_rank

__all__ = ["main"]

# Exit status: 0 fine, 1 the nets differ or a limit is broken, 2 something given can't be used, 70 a
# fault in here (as sysexits.h has it), 130 interrupted (as of a shell's command).
MISMATCH = 1
LIMIT_BROKEN = 1
UNUSABLE = 2
CRASHED = 70
INTERRUPTED = 130

EXAMPLES = """
\b
Examples:
  lava-bridge convert mynet:build --weights w.pt --input-shape 1,8,8 -o net.net
  lava-bridge verify mynet:build net.net --weights w.pt --input x.npy
  lava-bridge run net.net --input x.npy -o y.npy
  lava-bridge inspect net.net
  lava-bridge inspect net.net --chip loihi2
"""


class _Commands(click.Group):
    """Turns this library's errors into one line and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with warnings.catch_warnings():
                shown: Any = _show_warning  # file and line come by place, which no type can say
                warnings.showwarning = shown
                return super().invoke(ctx)
        except (BridgeError, Warning) as error:  # warnings are raised with PYTHONWARNINGS=error
            if is_first_rank():
                click.echo(f"Error: {error}", err=True)
            ctx.exit(UNUSABLE)
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except KeyboardInterrupt:  # not click's status of 1, which is that of a mismatch
            if is_first_rank():
                click.echo("Interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except Exception:  # a fault of this library: not to be taken for a mismatch
            traceback.print_exc()
            ctx.exit(CRASHED)


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any
) -> None:
    """A warning of this library's in one line, another with the place of its code."""
    if not is_first_rank():
        return
    if Path(__file__).parent in Path(filename).parents:
        click.echo(f"Warning: {message}", err=True)
    else:
        click.echo(warnings.formatwarning(message, category, filename, lineno), nl=False, err=True)


@click.group(
    cls=_Commands, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__)
def main() -> None:
    """Convert trained SpikingJelly nets to .net files for Lava and Loihi, and prove them equal."""


_FACTORY_HELP = (
    "MODULE:FACTORY names a function without arguments that returns the net, in a module that "
    "Python finds from here or in a file: mynet:build, nets/mynet.py:build."
)


@main.command(
    epilog="""
\b
Examples:
  lava-bridge convert mynet:build --weights w.pt --input-shape 1,8,8 -o net.net
  lava-bridge convert mynet.py:build --input-shape 700 --delay-shift -o net.net
  lava-bridge convert mynet:build --input-shape 1,8,8 --target lava -o net.net
  lava-bridge convert mynet:build --input-shape 3,32,32 --encoding direct --calibrate x.npy -o n.net
""",
    help=f"Convert a SpikingJelly net to a .net file.\n\n{_FACTORY_HELP}",
)
@click.argument("factory", metavar="MODULE:FACTORY")
@click.option("--weights", type=click.Path(), help="A state_dict saved with torch.save.")
@click.option("--input-shape", type=Shape(), required=True, help="Shape of one input: C,H,W or C.")
@click.option("-o", "--output", type=OutputFile(), required=True, help="The file to write.")
@click.option(
    "--delay-shift", is_flag=True, help="Delay the spikes by one step a layer, as the chip."
)
@click.option(
    "--target",
    type=click.Choice(["lava"]),
    help="Write only what Lava's own netx can run (pooling as convolution, ...).",
)
@click.option(
    "--encoding",
    type=click.Choice(["direct", "graded"]),
    help="For a net that is fed analog input: keep its first layer in floats, in a file beside the "
    "output, or make the input integers of 8 bits. Without, the input is spikes.",
)
@click.option(
    "--calibrate",
    metavar="weights|FILE.npy",
    help="Give each layer all of 8 bits: by its weights, or, better, by a batch of input [T, N, *] "
    "in a file.",
)
def convert(
    factory: str,
    weights: str | None,
    input_shape: tuple[int, ...],
    output: str,
    delay_shift: bool,
    target: Literal["lava"] | None,
    encoding: str | None,
    calibrate: str | None,
) -> None:
    from .convert import to_slayer
    from .encoder import split_encoder
    from .hdf5 import export_hdf5
    from .hdf5.encoder import encoder_file

    code, data = factory.partition(":")[0], None if calibrate == "weights" else calibrate
    refuse_overwriting(output, code=code, weights=weights, calibration=data)
    net = build_net(factory, weights)
    by = None if calibrate is None else _calibration(calibrate)
    blocks = to_slayer(net, input_shape, delay_shift=delay_shift, encoding=encoding, calibrate=by)
    export_hdf5(blocks, output, target=target)
    encoder, layers = split_encoder(blocks)
    click.echo(f"{output}: {len(layers)} layers, {Path(output).stat().st_size:,} bytes")
    if encoder is not None:
        click.echo(f"{encoder_file(output).name}: {_encoder_line(encoder)}")
    if blocks.report.calibration is not None:
        show(blocks.report.calibration.table())


def _input(path: str, mapped: bool = False) -> "np.ndarray":
    """An input of a net, ``[T, N, *]`` or ``[N, *, T]``."""
    x = load_array(path, mapped)
    if x.ndim < 3:
        raise BridgeError(f"{path}: expected 3 or more dimensions, found shape {x.shape}")
    return x


def _calibration(given: str) -> "str | np.ndarray":
    """What ``--calibrate`` names: a word of to_slayer's, or a batch of input."""
    if given == "weights":
        return given
    if not Path(given).is_file():
        raise BridgeError(
            f"--calibrate: expected 'weights' or a file of input, found {given!r}, which is neither"
        )
    return load_array(given)


def _files_of(net: str) -> dict[str, str]:
    """A ``.net`` file and that of its encoder, by what they are; none where there is no such."""
    from .hdf5.encoder import encoder_file

    return {"net": net, "encoder": str(encoder_file(net))} if Path(net).is_file() else {}


_ENCODE = click.option(
    "--encode/--no-encode",
    default=True,
    help="Whether to use the encoder that the file has for analog input.",
)

_INPUT = click.option(
    "--input",
    "input_file",
    type=click.Path(),
    required=True,
    help="Input, .npy: spikes, or what the encoder takes.",
)

_LAYOUT = click.option(
    "--layout",
    type=click.Choice(["TNX", "NXT"]),
    default="TNX",
    show_default=True,
    help="Order of the input's dimensions: SpikingJelly's [T, N, *] or slayer's [N, *, T].",
)


@main.command(
    epilog="""
\b
Examples:
  lava-bridge verify mynet:build net.net --weights w.pt --input x.npy
  lava-bridge verify mynet:build net.net --input x.npy --layout NXT || echo differs
  torchrun --nproc-per-node 4 -m lava_bridge verify mynet:build net.net --input x.npy
  lava-bridge verify mynet:build net.net --input x.npy --report out.html
""",
    help=(
        "Prove that a .net file gives the spikes of a SpikingJelly net.\n\nThe net, quantised, and "
        "the file, as blocks and as Lava's integers, are run on the input and compared spike by "
        "spike: exit status 0 if they agree, 1 if not. How far the net itself, unquantised, drifts "
        "from the file is shown as well, if it runs on that input. Slayer blocks, in order, are "
        "compared as they are.\n\n" + _FACTORY_HELP
    ),
)
@click.argument("factory", metavar="MODULE:FACTORY")
@click.argument("file", metavar="NAME.net")
@click.option("--weights", type=click.Path(), help="A state_dict saved with torch.save.")
@_INPUT
@_LAYOUT
@click.option("--report", type=OutputFile(), help="Write what was found as one HTML page as well.")
def verify(
    factory: str,
    file: str,
    weights: str | None,
    input_file: str,
    layout: str,
    report: str | None,
) -> None:
    from .convert import to_slayer, to_spikingjelly
    from .distributed import agreed, joined
    from .encoder import is_block, split_encoder
    from .hdf5 import load_hdf5
    from .sides import has_neurons
    from .verify import check_equivalence

    if report is not None:
        code = factory.partition(":")[0]
        refuse_overwriting(report, input=input_file, code=code, weights=weights, **_files_of(file))

    def sides() -> tuple[Any, Any, "np.ndarray", Any]:
        """The net, its twin, and the input, as every process has them, and how it was converted."""
        net = build_net(factory, weights)
        x = _input(input_file, mapped=distributed)
        if isinstance(net, Iterable) and all(map(is_block, net)):
            return net, net, x, []  # slayer blocks are compared as they are
        shape = x.shape[2:] if layout == "TNX" else x.shape[1:-1]
        encoder, blocks = split_encoder(load_hdf5(file))
        encoding = None if encoder is None else encoder.kind
        try:
            converted = to_slayer(net, tuple(shape), encoding=encoding, calibrate=blocks)
        except BridgeError as error:
            raise BridgeError(
                f"{error} (in layout {layout} a sample of {input_file} has shape {tuple(shape)})"
            ) from error
        return net, to_spikingjelly(converted), x, converted.report.tables

    with joined() as distributed:
        net, twin, x, tables = agreed(sides)
        options: dict[str, Any] = {"layout": layout, "distributed": distributed}
        exact = check_equivalence(twin, file, x, **options)
        integers = check_equivalence(twin, file, x, integers=True, **options)
        drift, unmeasured = None, ""
        if has_neurons(net):  # of a net of sums alone nothing spikes that could drift
            try:
                drift = check_equivalence(net, file, x, **options)
            except BridgeError as error:
                # The proof does without: a net that repeats its input itself takes another than
                # the blocks, which are given every step.
                unmeasured = str(error).removeprefix("a (float SpikingJelly net): ")
        show(exact.table())
        click.echo(exact.verdict)
        if not integers.ok:
            show(integers.table())
        click.echo(f"integers of {file}: {integers.verdict}")
        if drift is not None and drift.claim == "drift":
            click.echo(f"float net against {file}: {drift.verdict}")
        if unmeasured:
            click.echo(f"float net against {file}: drift not measured: {unmeasured}")
        if report is not None and is_first_rank():
            from .html_report import save_html

            reports = {
                "The quantised net and the file": exact,
                "The quantised net and the file in Lava's integers": integers,
            }
            if drift is not None:
                reports["The net itself and the file"] = drift
            save_html(reports, report, f"{Path(file).name} and {factory}", tables)
            click.echo(f"report: {report}")
    if not (exact.ok and integers.ok):
        if weights is None and is_first_rank():
            click.echo(f"(Without --weights, those that {factory} gives were compared.)", err=True)
        sys.exit(MISMATCH)


@main.command(
    epilog="""
\b
Examples:
  lava-bridge run net.net --input x.npy -o y.npy
  lava-bridge run net.net --input x.npy -o y.npy --extra-steps 4 --aligned
  lava-bridge run lava.net --input x.npy -o y.npy --input-shape 34,34,2 --reset-interval 300
  lava-bridge run sums.net --input x.npy -o v.npy --voltages
""",
    help=(
        "Run a .net file with integers, bit for bit as Lava does.\n\nThe input is [T, N, C, H, W], "
        "[T, N, C, L] or [T, N, C]; the output spikes have its order, a step for each step of the "
        "input. Each layer takes a step: a net of four answers four steps later, the last four "
        "steps only with --extra-steps 4. Where the file has an encoder, the input is analog; with "
        "--no-encode it is spikes."
    ),
)
@click.argument("file", metavar="NAME.net")
@_INPUT
@click.option("-o", "--output", type=OutputFile(), required=True, help="The file to write, .npy.")
@_LAYOUT
@click.option(
    "--input-shape",
    type=Shape(),
    metavar="W,H,C",
    help="Shape of one input, in Lava's order, where the file does not have it.",
)
@_ENCODE
@click.option(
    "--voltages",
    is_flag=True,
    help="Write the last layer's voltages, as the chip's integers: of a net that ends with sums, "
    "which never spikes.",
)
@click.option(
    "--extra-steps",
    type=click.IntRange(min=0),
    default=0,
    help="Run so many steps more, without input, for what is on its way through the layers.",
)
@click.option(
    "--graded", default=0, help="Bits of an input spike; 0: what is not 0 is a spike of 1."
)
@click.option(
    "--aligned",
    is_flag=True,
    help="Let each layer rest until the input has come to it: of nets with biases the spikes are "
    "then the blocks', as verify compares them; Lava begins with all layers at once.",
)
@click.option("--reset-interval", type=int, help="Set the neurons to 0 every so many steps.")
@click.option("--reset-offset", default=0, help="Step of the first reset, counted from 0.")
def run(
    file: str,
    input_file: str,
    output: str,
    layout: str,
    input_shape: tuple[int, ...] | None,
    encode: bool,
    voltages: bool,
    extra_steps: int,
    graded: int,
    aligned: bool,
    reset_interval: int | None,
    reset_offset: int,
) -> None:
    from .hdf5.writer import write_whole
    from .netx import Network
    from .netx.neuron import Lif

    refuse_overwriting(output, input=input_file, **_files_of(file))
    net = Network(
        file,
        input_shape=input_shape,
        input_message_bits=graded,
        reset_interval=reset_interval,
        reset_offset=reset_offset,
        aligned=aligned,
        encoder=encode,
    )
    x: Any = _input(input_file)
    if net.encoder is not None:
        x = net.encoded(x, layout)
    elif not net.graded_input and bool((x != x.astype(bool)).any()):
        click.echo(
            f"Warning: {input_file}: has values other than 0 and 1; each is taken for a spike of 1 "
            "(--graded takes their values)",
            err=True,
        )
    if extra_steps:
        time = 0 if layout == "TNX" else x.ndim - 1
        x = np.pad(x, [(0, extra_steps * (axis == time)) for axis in range(x.ndim)])
    neuron = net.layers[-1].neuron
    if voltages:
        if not isinstance(neuron, Lif):
            raise BridgeError(f"{file}: its last layer has no voltages; leave --voltages out")
        found = net.run(x, layout=layout, traces=True).layers[-1].traces["voltage"].numpy()
    else:
        found = net.run(x, layout=layout).numpy()
    whole = found.astype(np.int32)
    image = io.BytesIO()
    np.save(image, whole if np.array_equal(whole, found) else found)
    write_whole(Path(output), image.getbuffer())
    if net.encoder is not None:
        click.echo(f"input encoded by {_encoder_line(net.encoder)}")
    click.echo(str(net))
    fired = np.count_nonzero(found) / max(found.size, 1)
    content = "voltages" if voltages else f"{fired:.2%} spikes"
    late = f"{net.latency} steps after the input" if net.latency else "in the input's steps"
    click.echo(f"{output}: {tuple(found.shape)} ({layout}), {content}, {late}")
    if extra_steps < net.latency:
        missing = net.latency - extra_steps
        click.echo(
            f"The answers to the last {missing} steps are not in it; --extra-steps {net.latency}"
        )
    if isinstance(neuron, Lif) and neuron.never_fires and not voltages:
        click.echo("The last layer gives sums and never spikes; --voltages writes them.")


@main.command(
    epilog="""
\b
Examples:
  lava-bridge inspect net.net
  lava-bridge inspect net.net --chip loihi2 || echo does not fit
""",
    help=(
        "Show the layers of a .net file.\n\nThe factor is what calibration multiplied weights, "
        "bias and threshold by; a norm's exponent e says that it divides by 2^e; the bias is the "
        "chip's integers, from the lowest to the highest.\n\nWith --chip: what they need at "
        "least of Loihi or Loihi 2, and every published limit of the chip that is broken, by "
        "layer, value and limit: exit status 0 if none is, 1 if one is."
    ),
)
@click.argument("file", metavar="NAME.net")
@click.option("--chip", type=click.Choice(["loihi1", "loihi2"]), help="Show what the net needs.")
@_ENCODE
def inspect(file: str, chip: str | None, encode: bool) -> None:
    from .layers_table import layers_table

    if chip is not None:
        _inspect_needs(file, chip)
        return
    show(layers_table(file, encode))


def _inspect_needs(file: str, chip: str) -> None:
    """Show what a file needs of a chip; the exit status says whether it breaks a limit."""
    from .chip import CHIPS, check_chip

    report = check_chip(file, CHIPS[chip])
    show(report.table())
    click.echo(report.verdict)
    if not report.ok:
        sys.exit(LIMIT_BROKEN)


def _encoder_line(encoder: Any) -> str:
    line = " ".join(str(encoder).split()).replace("( ", "(").replace(" )", ")")
    return line.replace(" (synapse): ", ", synapse=")
