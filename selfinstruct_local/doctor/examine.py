"""The checks in their order, and what of one the next needs to know.

Leans on the modules beside it; each imports its heavy libraries itself.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import selfinstruct_local
from selfinstruct_local.doctor.finding import Finding

if TYPE_CHECKING:
    from selfinstruct_local.doctor.hardware import Card
    from selfinstruct_local.train.settings import TrainSettings


@dataclass(frozen=True, slots=True)
class Wish:
    """What the work will use.

    Attributes:
        model: as `--model` names it; None is the embedded one.
        out: folder of the runs; it need not be there yet.
        training: settings of a training that is meant; None asks whether LoRA by default would go.
        port: for `selfinstruct serve`; None is its default.
        endpoints: base URLs of servers.
    """

    model: str | None = None
    out: Path = Path()
    training: "TrainSettings | None" = None
    port: int | None = None
    endpoints: tuple[str, ...] = ()


def examine(wish: Wish) -> Iterator[Finding]:
    """Looks at the machine, check by check, in a fixed order; nothing is raised for what is missing."""
    for part in (_software, _machine_and_model, _similarity, _storage, _network):
        yield from _guarded(part, wish)


def _guarded(part: Callable[[Wish], Iterable[Finding]], wish: Wish) -> Iterator[Finding]:
    """The findings of a part, and one more where a library that every installation has is missing."""
    try:
        yield from part(wish)
    except ImportError as error:
        detail = f"the rest is not looked at: {error.name or error} cannot be imported"
        name = part.__name__.strip("_").replace("_", " ")
        yield Finding(name, "fail", detail, "install this package with all that it depends on")


def _software(_wish: Wish) -> Iterator[Finding]:
    from selfinstruct_local.doctor import software

    yield software.check_encoding()
    yield software.check_clock(Path(selfinstruct_local.__file__))
    yield software.check_python()
    installed = software.read_installed()
    yield software.check_packages(installed)
    yield software.check_lock(installed, software.find_lock(installed))
    yield from software.check_extras(installed)


def _machine_and_model(wish: Wish) -> Iterator[Finding]:
    from selfinstruct_local.doctor import hardware

    torch = hardware.read_torch()
    yield from hardware.check_gpus(hardware.read_driver(), torch)
    available = hardware.read_memory()
    yield hardware.check_memory(available)
    yield hardware.check_shared_memory()
    yield hardware.check_open_files()
    yield from _model(wish, torch.cards, available)


def _model(wish: Wish, cards: "tuple[Card, ...]", available: int) -> Iterator[Finding]:
    from selfinstruct_local.doctor import model, storage
    from selfinstruct_local.train.settings import TrainSettings

    finding, folder = model.check_folder(wish.model)
    yield finding
    if folder is None:
        return
    finding, weights = model.check_weights(folder)
    yield finding
    planned = wish.training is not None
    settings = wish.training or TrainSettings()
    place = storage.existing_folder(wish.out)
    # Both spend seconds on importing transformers, one of them in a process of its own.
    with ThreadPoolExecutor(1) as beside:
        tokenizer = beside.submit(model.check_tokenizer, folder)
        training = model.check_training(folder, settings, cards, available, planned=planned)
        room = model.check_room(folder, settings, place, planned=planned)
        yield tokenizer.result()
    if weights is not None:
        yield model.check_loading(weights, cards, available)
    yield training
    yield room


def _similarity(_wish: Wish) -> Iterator[Finding]:
    from selfinstruct_local.doctor import similarity

    yield similarity.check_cache()
    yield similarity.check_kernels()


def _storage(wish: Wish) -> Iterator[Finding]:
    from selfinstruct_local.doctor import storage

    finding = storage.check_folder(wish.out)
    yield finding
    if finding.status == "fail":
        return
    place = storage.existing_folder(wish.out)
    yield storage.check_file_system(place, storage.file_system(place))
    yield storage.check_disk(place)
    yield storage.check_sqlite(place)


def _network(wish: Wish) -> Iterator[Finding]:
    from selfinstruct_local.doctor import network

    yield network.check_offline()
    yield network.check_proxies(wish.endpoints)
    yield network.check_port(wish.port)
    for url in wish.endpoints:
        yield network.check_endpoint(url)
