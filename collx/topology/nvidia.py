"""What NVIDIA's driver tells of GPUs, by nvidia-ml-py (`pip install collx[cuda]`)."""

from __future__ import annotations

from typing import Any, NamedTuple

SWITCH = "switch"  # every NVSwitch is one: they all join the same GPUs


class Gpu(NamedTuple):
    """`links` are the PCI addresses that its NVLinks lead to, or SWITCH."""

    number: int
    address: str
    model: str
    links: frozenset[str] = frozenset()


def gpus() -> list[Gpu]:
    """The GPUs of this machine, in the driver's order; none where the library is not installed or finds no driver."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # the library without a driver: this machine has no GPU that could be used
        return []
    try:
        return [_gpu(pynvml, number) for number in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def _gpu(pynvml: Any, number: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(number)
    ends = set()
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        try:
            if not pynvml.nvmlDeviceGetNvLinkState(handle, link):
                continue
            if pynvml.nvmlDeviceGetNvLinkRemoteDeviceType(handle, link) == pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH:
                ends.add(SWITCH)
            else:
                ends.add(_address(pynvml.nvmlDeviceGetNvLinkRemotePciInfo(handle, link)))
        except pynvml.NVMLError:  # the GPU has no such link
            continue
    address = _address(pynvml.nvmlDeviceGetPciInfo(handle))
    return Gpu(number, address, _string(pynvml.nvmlDeviceGetName(handle)), frozenset(ends))


def _address(info: Any) -> str:
    return _string(info.busId).lower()[-12:]  # Linux writes 4 digits of the domain, NVIDIA 8


def _string(told: str | bytes) -> str:
    return told.decode() if isinstance(told, bytes) else told
