"""What a training step costs on many ranks: a model of measured parts, to look beyond the machines at hand.

    step(R) = a * rows(R) + u + allreduce(R)                         rows(R) = B / R, rounded up
    allreduce(R) = 2 (R - 1) / R * n / bandwidth + (R - 1) / R * n * addition + 2 log2(R) * latency

`B` is the global batch, `a` the seconds of a rank's arithmetic that go with its rows, `u` those of a step that do
not: the update, which every rank makes in full, and whatever is done once. One rank has an `a` and a `u` of its own:
it need not keep gradients until they are summed, and has the machine's memory to itself. `n` are the bytes of the
gradients; `latency`, `bandwidth` and `addition` (seconds a byte, to add what has arrived) belong to the network
between the ranks. The second line is the cost of Rabenseifner's allreduce, a reduce-scatter by halves and an
allgather, in R. Thakur, R. Rabenseifner and W. Gropp, "Optimization of collective communication operations in MPICH",
International Journal of High Performance Computing Applications 19 (2005), with log2(R) rounded up.

`bench_ranks.py` measures the parts, `a` and `u` where nothing is exchanged and the others with reductions alone, and
compares what they give together with steps of two ranks. `python bench/cost_of_ranks.py` draws what it has found, to
1,000 ranks.

What is not in it: ranks that wait for the slowest one, networks whose links are shared, several reductions at once.
"""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import timing

FOUND = "cost_of_ranks.json"


@dataclass(frozen=True)
class Arithmetic:
    """Seconds of one rank's own work in a step: `a` for each row, `u` for the step."""

    a: float
    u: float

    def seconds(self, rows: float) -> float:
        return self.a * rows + self.u


@dataclass(frozen=True)
class Parts:
    """Of a network: the work of one rank alone and of each of several, and the bytes of the gradients."""

    alone: Arithmetic
    among: Arithmetic
    size: int


@dataclass(frozen=True)
class Link:
    """Between any two ranks: seconds until the first byte, bytes in a second, seconds to add a byte."""

    latency: float
    bandwidth: float
    addition: float = 0.0


def ethernet(gigabits: float, microseconds: float, addition: float = 0.0) -> Link:
    """A link by the numbers that it is sold by."""
    return Link(microseconds * 1e-6, gigabits * 1e9 / 8, addition)


def allreduce(ranks: int, size: int, link: Link) -> float:
    """Seconds to sum so many bytes over all ranks."""
    part = (ranks - 1) / ranks
    return part * size * (2 / link.bandwidth + link.addition) + 2 * math.ceil(math.log2(ranks)) * link.latency


def step(ranks: int, batch: int, parts: Parts, link: Link) -> float:
    """Seconds of a step in which the ranks share a batch."""
    if ranks == 1:
        return parts.alone.seconds(batch)
    return parts.among.seconds(-(-batch // ranks)) + allreduce(ranks, parts.size, link)


def speedup(ranks: int, batch: int, parts: Parts, link: Link) -> float:
    """How many times as fast as one rank."""
    return step(1, batch, parts, link) / step(ranks, batch, parts, link)


def smallest_batch(ranks: int, parts: Parts, link: Link, efficiency: float = 0.5) -> float:
    """The global batch from which on the speed-up is at least that part of the number of ranks; infinity if none is.

    Where the time of one rank is `efficiency * R * (a B / R + u + allreduce(R))`, which is solved for B.
    """
    gained = parts.alone.a - efficiency * parts.among.a
    if gained <= 0:
        return math.inf
    shared = parts.among.u + allreduce(ranks, parts.size, link)
    return max(ranks, math.ceil((efficiency * ranks * shared - parts.alone.u) / gained))


def fitted(rows: Sequence[int], seconds: Sequence[float]) -> Arithmetic:
    """By least squares of the relative errors; neither part is negative."""
    sizes, measured = np.asarray(rows, float), np.asarray(seconds)
    a, u = _nonnegative(np.column_stack([sizes, np.ones_like(sizes)]) / measured[:, None])
    return Arithmetic(a, u)


def fitted_link(sizes: Sequence[int], seconds: Sequence[float], ranks: int) -> Link:
    """Likewise, of reductions over so many ranks; what it takes to add is in the bandwidth."""
    parts = np.asarray(sizes, float) * 2 * (ranks - 1) / ranks
    rounds = np.full_like(parts, 2 * math.ceil(math.log2(ranks)))
    per_byte, latency = _nonnegative(np.column_stack([parts, rounds]) / np.asarray(seconds)[:, None])
    return Link(latency, 1 / per_byte if per_byte else math.inf)


def _nonnegative(relative: np.ndarray) -> tuple[float, float]:
    """The two factors with which the columns add up to ones, as nearly as can be."""
    ones = np.ones(len(relative))
    both = np.linalg.lstsq(relative, ones, rcond=None)[0]
    if both.min() >= 0:
        return float(both[0]), float(both[1])
    alone = [np.linalg.lstsq(relative[:, place : place + 1], ones, rcond=None)[0][0] for place in (0, 1)]
    errors = [np.square(relative[:, place] * alone[place] - 1).sum() for place in (0, 1)]
    return (float(alone[0]), 0.0) if errors[0] <= errors[1] else (0.0, float(alone[1]))


# From here on: what is drawn

LINKS = {"10 Gbit/s, 20 us": (10, 20), "100 Gbit/s, 2 us": (100, 2)}
RANKS = (2, 8, 32, 128, 1000)
MOST = 1000
BATCHES = (1_000, 10_000, 100_000, 1_000_000)


def save(parts: dict[str, Parts], addition: float, about: dict[str, str]) -> None:
    """Keep what was measured, by network, and seconds to add a byte; other networks stay."""
    timing.RESULTS.mkdir(exist_ok=True)
    file = timing.RESULTS / FOUND
    kept = json.loads(file.read_text()) if file.exists() else {}
    kept |= {name: {**asdict(of), "addition": addition, "facts": about} for name, of in parts.items()}
    file.write_text(json.dumps(kept, indent=1))


def load() -> tuple[dict[str, Parts], float, dict[str, str]]:
    """Parts by network, the smaller ones first, and what the last measurement said of additions and of the machine."""
    kept = json.loads((timing.RESULTS / FOUND).read_text())
    parts = {name: Parts(Arithmetic(**of["alone"]), Arithmetic(**of["among"]), of["size"]) for name, of in kept.items()}
    last = list(kept.values())[-1]
    return dict(sorted(parts.items(), key=lambda one: one[1].size)), last["addition"], last["facts"]


def described(parts: Parts) -> str:
    """In words."""
    return "; ".join(f"{who} {1e6 * of.a:.3g} us a row and {1e6 * of.u:,.3g} us a step" for who, of in (
        ("one rank", parts.alone), ("each of several", parts.among))) + f"; {parts.size:,} bytes"


def smallest_batches(networks: dict[str, Parts], addition: float) -> list[list[str]]:
    """A table: the global batch from which on the efficiency is one half."""
    lines = [["smallest batch with half the efficiency", "network", *(f"{ranks:,} ranks" for ranks in RANKS)]]
    for name, parts in networks.items():
        for link, numbers in LINKS.items():
            batches = [smallest_batch(ranks, parts, ethernet(*numbers, addition)) for ranks in RANKS]
            lines.append([name, link, *("none" if math.isinf(batch) else f"{_rounded(batch):,}" for batch in batches)])
    return lines


def _rounded(number: float) -> int:
    """To two digits, upwards."""
    unit = 10 ** max(0, len(str(int(number))) - 2)
    return int(-(-number // unit) * unit)


def draw(networks: dict[str, Parts], addition: float, path) -> None:
    """Speed-up and efficiency against ranks, a column for each network, a colour for each global batch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 5.6), layout="constrained")
    axes = figure.subplots(2, len(networks), sharex=True, sharey="row", squeeze=False)
    for column, (name, parts) in enumerate(networks.items()):
        for place, batch in enumerate(BATCHES):
            ranks = np.unique(np.geomspace(1, min(MOST, batch), 120).astype(int))
            for numbers, style in zip(LINKS.values(), ("--", "-"), strict=True):
                found = np.array([speedup(int(count), batch, parts, ethernet(*numbers, addition)) for count in ranks])
                label = f"batch {batch:,}" if style == "-" else None
                axes[0, column].plot(ranks, found, style, color=f"C{place}", linewidth=1.3, label=label)
                axes[1, column].plot(ranks, found / ranks, style, color=f"C{place}", linewidth=1.3)
        axes[0, column].plot([1, MOST], [1, MOST], color="0.8", linewidth=0.8, zorder=0)
        axes[1, column].axhline(0.5, color="0.6", linewidth=0.8, zorder=0)
        axes[0, column].set_title(f"{name}\n{parts.size / 1e6:.3g} MB of gradients", fontsize=9)
        axes[0, column].set(xscale="log", yscale="log", ylim=(0.8, MOST))
        axes[0, column].yaxis.set_major_formatter("{x:,.0f}")
        axes[1, column].set(ylim=(0, 1.02), xlabel="ranks")
        axes[1, column].xaxis.set_major_formatter("{x:,.0f}")
    axes[0, 0].set_ylabel("times as fast as one rank")
    axes[1, 0].set_ylabel("efficiency")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    for link, style in zip(LINKS, ("--", "-"), strict=True):
        handles += axes[0, 0].plot([], [], style, color="0.3", linewidth=1.3)
        labels.append(link)
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8, frameon=False)
    figure.savefig(path, dpi=90, pil_kwargs={"optimize": True})


def main(argv: list[str] | None = None) -> int:
    """Draw what `bench_ranks.py` has found last."""
    (path,) = (sys.argv[1:] if argv is None else argv) or [str(timing.RESULTS / "cost_of_ranks.png")]
    if not (timing.RESULTS / FOUND).exists():
        print(f"there is no {timing.RESULTS / FOUND}: run bench/bench_ranks.py first", file=sys.stderr)
        return 1
    networks, addition, about = load()
    print("\n".join(f"{key}: {value}" for key, value in about.items()) + "\n")
    for name, parts in networks.items():
        print(f"{name}: {described(parts)}")
    print(f"to add what arrives: {1e9 * addition:.3f} ns a byte\n")
    print(timing.markdown(smallest_batches(networks, addition)))
    draw(networks, addition, path)
    print(f"\nwritten: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
