"""Two hosts, as two network namespaces with a cable between them, which is pulled in the middle of an epoch."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress

import pytest

from tests.training.runs import assert_same, leftovers, rows, train_together

PATIENCE = 15  # seconds that a host waits for the other
HOSTS = ("10.231.7.1", "10.231.7.2")


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True)


@pytest.fixture
def hosts():
    """Names of two network namespaces, whose only ways out are the ends of one cable."""
    if shutil.which("ip") is None:
        pytest.skip("needs the command ip")
    names = [f"medprism-{os.getpid()}-{number}" for number in range(2)]
    with ExitStack() as made:
        try:
            for name in names:
                ip("netns", "add", name)
                made.callback(ip, "netns", "del", name)
            ip("link", "add", "cable0", "netns", names[0], "type", "veth", "peer", "name", "cable1", "netns", names[1])
            for number, name in enumerate(names):
                ip("-n", name, "addr", "add", f"{HOSTS[number]}/24", "dev", f"cable{number}")
                for device in (f"cable{number}", "lo"):
                    ip("-n", name, "link", "set", device, "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces are not permitted here: {error.stderr.strip()}")
        yield names


def begin(hosts, number, cache, run, **environment):
    """One host's torchrun, which starts one process."""
    launch = "-m torch.distributed.run --nnodes 2 --nproc-per-node 1 --rdzv-id medprism --rdzv-backend c10d "
    launch += f"--rdzv-endpoint {HOSTS[0]}:29507 --local-addr {HOSTS[number]} -m tests.training.as_host"
    words = (
        f"pretrain --data {cache} --out {run} --network.width 4 --network.levels 3 --puir.embedding 16 "
        "--patches.size 16,16,16 --patches.per_subject 2 --patches.validation 1 --patches.batch 2 --epochs 4 --seed 3 "
        "--optimiser.lr 1e-3 --optimiser.average 0.9 --compute.device cpu --compute.nodes 2 --resume auto"
    )
    about = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": f"cable{number}", "PATIENCE": str(PATIENCE)}
    names = run.with_name(f"hosts{number}")  # no name server can be asked from there
    lines = ["127.0.0.1 localhost", f"{HOSTS[number]} {socket.gethostname()}", *(f"{one} {one}.test" for one in HOSTS)]
    names.write_text("\n".join(lines) + "\n")
    inside = f'mount --bind {names} /etc/hosts && exec "$@"'  # seen in this namespace only
    return subprocess.Popen(
        ["ip", "netns", "exec", hosts[number], "sh", "-c", inside, "sh", sys.executable, *f"{launch} {words}".split()],
        env={**os.environ, **about, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def end(hosts, processes):
    """Kill whatever runs on the hosts: torchrun's children are in groups of their own."""
    for host in hosts:
        for pid in ip("netns", "pids", host).stdout.split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    for process in processes:
        process.communicate()


@pytest.mark.slow
def test_a_pulled_cable_ends_the_training_and_it_goes_on_to_the_same_model(hosts, cache, tmp_path):
    run, still = tmp_path / "run", tmp_path / "still"
    both = [begin(hosts, 0, cache, run)]
    both.append(begin(hosts, 1, cache, run, STANDS_STILL_AT="6", STANDS_STILL=str(still)))  # in the third epoch
    try:
        while not still.exists():
            ended = [process.communicate()[1] for process in both if process.poll() is not None]
            assert not ended, ended
            time.sleep(0.1)
        ip("-n", hosts[1], "link", "set", "cable1", "down")
        pulled = time.monotonic()
        told = both[0].communicate(timeout=PATIENCE + 60)[1]
        assert both[0].returncode == 1
        assert time.monotonic() - pulled < PATIENCE + 45
        assert "expected 2 processes to go on, got no answer from another" in told
    finally:
        end(hosts, both)
    assert len(rows(run)) == 2
    assert not (run / "done").exists()

    ip("-n", hosts[1], "link", "set", "cable1", "up")
    both = [begin(hosts, number, cache, run) for number in range(2)]
    try:
        told = [process.communicate(timeout=200)[1] for process in both]
        assert [process.returncode for process in both] == [0, 0], told
    finally:
        end(hosts, both)
    assert train_together(2, cache, tmp_path / "straight") == [0, 0]
    assert_same(run, tmp_path / "straight")
    assert leftovers(run) == []
