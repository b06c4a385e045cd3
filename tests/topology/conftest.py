"""A server as Linux would tell of it."""

from pathlib import Path

import pytest

GPUS = ("0000:17:00.0", "0000:65:00.0", "0000:ca:00.0")


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """Two packages with two NUMA nodes each, 16 cores of two threads, thread t of core c being CPU c + 16 t."""
    cpu = "sys/devices/system/cpu"
    files = {
        f"{cpu}/online": "0-31",
        "proc/cpuinfo": "model name\t: A  Processor",
        "proc/meminfo": "MemTotal: 1048576 kB",
    }
    for core in range(16):
        for thread in (core, core + 16):
            files |= {
                f"{cpu}/cpu{thread}/topology/physical_package_id": str(core // 8),
                f"{cpu}/cpu{thread}/topology/package_cpus_list": "0-7,16-23" if core < 8 else "8-15,24-31",
                f"{cpu}/cpu{thread}/node{core // 4}/cpulist": "",
                f"{cpu}/cpu{thread}/topology/core_cpus_list": f"{core},{core + 16}",
                f"{cpu}/cpu{thread}/cache/index3/level": "3",
                f"{cpu}/cpu{thread}/cache/index3/size": "32768K",
                f"{cpu}/cpu{thread}/cache/index3/shared_cpu_list": "0-7,16-23" if core < 8 else "8-15,24-31",
            }
    for node in range(4):
        first = 4 * node
        files[f"sys/devices/system/node/node{node}/cpulist"] = f"{first}-{first + 3},{first + 16}-{first + 19}"
        files[f"sys/devices/system/node/node{node}/meminfo"] = f"Node {node} MemTotal:  2097152 kB"
    for at, address in enumerate(GPUS):
        files[f"sys/bus/pci/devices/{address}/class"] = "0x030200"
        files[f"sys/bus/pci/devices/{address}/numa_node"] = str(at if at < 2 else -1)
    write(tmp_path, files)
    return tmp_path
