"""All checks in order. Each module imports its own heavy libraries."""

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
    """What the planned work will use.

    Attributes:
        model: value of `--model`; None is the embedded model.
        out: folder of the runs; it may not exist yet.
        training: settings of a planned training; None checks the defaults (LoRA) and only warns.
        port: port of `selfinstruct serve`; None is the default port.
        endpoints: base URLs of servers.
    """

    model: str | None = None
    out: Path = Path()
    training: "TrainSettings | None" = None
    port: int | None = None
    endpoints: tuple[str, ...] = ()


def examine(wish: Wish) -> Iterator[Finding]:
    """Yield the finding of each check in a fixed order; missing libraries give findings, not errors."""
    for part in (_software, _machine_and_model, _similarity, _storage, _network):
        yield from _guarded(part, wish)


def _guarded(part: Callable[[Wish], Iterable[Finding]], wish: Wish) -> Iterator[Finding]:
    """Yield the findings of one group of checks, and a failure if a required library cannot be imported."""
    try:
        yield from part(wish)
    except ImportError as error:
        detail = f"the other checks are skipped: {error.name or error} cannot be imported"
        name = part.__name__.strip("_").replace("_", " ")
        yield Finding(name, "fail", detail, "install this package with all its dependencies")


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
    # Both take seconds to import transformers, one of them in a child process.
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
