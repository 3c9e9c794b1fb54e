"""The host, read from frozen copies of /proc and /sys."""

import os
import time
from pathlib import Path

import pytest

from ml_postgres_optimization.target.host import HostProbe, read_machine
from ml_postgres_optimization.target.host import probe as probe_module
from ml_postgres_optimization.target.host.cgroup import ControlGroup
from ml_postgres_optimization.telemetry import MemoryReading

GIB = 1024**3
STAT = "cpu  1000 100 500 90000 300 20 30 40 0 0\ncpu0 500 50 250 45000 150 10 15 20 0 0\n"
MEMINFO = (
    "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\nCommitLimit: 4194304 kB\nShmem: 1048576 kB\n"
    "HugePages_Total: 0\n"
)
STATUS = "Name:\tpostgres\nCpus_allowed:\tff\nCpus_allowed_list:\t0-3,6\n"
PRESSURE = (
    "some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=500000\n"
)
# reads, merged, sectors, ms, writes, merged, sectors, ms, in flight, busy ms, weighted ms
DEVICE = "10 0 2000 5 20 0 4000 7 0 1500 12\n"


class Frozen:
    """A frozen machine: `proc` and `sys` to be written into."""

    def __init__(self, root: Path) -> None:
        self.root, self.proc, self.sys = root, root / "proc", root / "sys"
        for name, text in {
            "stat": STAT,
            "loadavg": "1.25 0.50 0.10 2/300 4242\n",
            "meminfo": MEMINFO,
            "self/status": STATUS,
            "self/cgroup": "",
            "self/mountinfo": "",
            "sys/vm/overcommit_memory": "0\n",
            **{f"pressure/{resource}": PRESSURE for resource in ("cpu", "io", "memory")},
        }.items():
            self.write(f"proc/{name}", text)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def cgroup(self, text: str) -> None:
        """Put this process into groups."""
        self.write("proc/self/cgroup", text)

    def machine(self, **more):
        return read_machine(is_local=True, proc=self.proc, sys=self.sys, **more)


@pytest.fixture
def frozen(tmp_path) -> Frozen:
    return Frozen(tmp_path)


def with_device(frozen: Frozen) -> Path:
    """Say that the device which really holds the folder has the counters of DEVICE."""
    device = frozen.root.stat().st_dev
    folder = f"sys/dev/block/{os.major(device)}:{os.minor(device)}"
    frozen.write(f"{folder}/stat", DEVICE)
    return frozen.root / folder


class TestMemoryLimit:
    def test_without_any_limit_it_is_the_ram(self, frozen):
        machine = frozen.machine()
        assert (machine.memory_limit_bytes, machine.memory_limit_source) == (16 * GIB, "RAM")
        assert machine.is_local

    def test_a_limit_of_version_2(self, frozen):
        frozen.cgroup("0::/system.slice/postgresql.service\n")
        frozen.write("sys/fs/cgroup/system.slice/postgresql.service/memory.max", f"{2 * GIB}\n")
        assert (frozen.machine().memory_limit_bytes, frozen.machine().memory_limit_source) == (2 * GIB, "cgroup v2")

    def test_the_lowest_of_nested_limits_counts(self, frozen):
        frozen.cgroup("0::/kubepods/pod1/container1\n")
        frozen.write("sys/fs/cgroup/kubepods/memory.max", f"{8 * GIB}\n")
        frozen.write("sys/fs/cgroup/kubepods/pod1/memory.max", f"{GIB}\n")
        frozen.write("sys/fs/cgroup/kubepods/pod1/container1/memory.max", "max\n")
        assert frozen.machine().memory_limit_bytes == GIB

    def test_max_is_no_limit(self, frozen):
        frozen.cgroup("0::/a\n")
        frozen.write("sys/fs/cgroup/a/memory.max", "max\n")
        assert frozen.machine().memory_limit_source == "RAM"

    def test_a_limit_above_the_ram_is_none(self, frozen):
        frozen.cgroup("0::/a\n")
        frozen.write("sys/fs/cgroup/a/memory.max", f"{64 * GIB}\n")
        assert frozen.machine().memory_limit_source == "RAM"

    def test_inside_a_container_the_root_of_the_mount_is_its_own_group(self, frozen):
        frozen.cgroup("0::/../../docker/0123abcd\n")
        frozen.write("sys/fs/cgroup/memory.max", f"{3 * GIB}\n")
        assert frozen.machine().memory_limit_bytes == 3 * GIB

    def test_a_limit_of_version_1(self, frozen):
        frozen.cgroup("5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n0::/\n")
        frozen.write("sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", f"{4 * GIB}\n")
        frozen.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
        assert (frozen.machine().memory_limit_bytes, frozen.machine().memory_limit_source) == (4 * GIB, "cgroup v1")

    def test_the_huge_number_of_version_1_means_unlimited(self, frozen):
        frozen.cgroup("4:memory:/\n")
        frozen.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
        assert frozen.machine().memory_limit_source == "RAM"

    def test_version_1_without_a_namespace_falls_back_to_what_is_mounted(self, frozen):
        frozen.cgroup("4:memory:/docker/not-visible-here\n")
        frozen.write("sys/fs/cgroup/memory/memory.limit_in_bytes", f"{GIB}\n")
        assert frozen.machine().memory_limit_bytes == GIB

    def test_both_versions_at_once(self, frozen):
        frozen.cgroup("4:memory:/a\n0::/b\n")
        frozen.write("sys/fs/cgroup/unified/b/memory.max", f"{5 * GIB}\n")
        frozen.write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", f"{6 * GIB}\n")
        assert (frozen.machine().memory_limit_bytes, frozen.machine().memory_limit_source) == (5 * GIB, "cgroup v2")

    @pytest.mark.parametrize("text", ["", "many\n", "-1\n", "0x10\n", "12 34\n", "1e9\n"])
    def test_what_is_malformed_sets_no_limit(self, frozen, text):
        frozen.cgroup("0::/a\nnonsense\n::\n")
        frozen.write("sys/fs/cgroup/a/memory.max", text)
        assert frozen.machine().memory_limit_source == "RAM"

    def test_strict_overcommit_makes_the_commit_limit_count(self, frozen):
        frozen.write("proc/sys/vm/overcommit_memory", "2\n")
        assert (frozen.machine().memory_limit_bytes, frozen.machine().memory_limit_source) == (4 * GIB, "CommitLimit")

    def test_the_server_s_own_group_counts_where_it_is_known(self, frozen):
        frozen.cgroup("0::/ours\n")
        frozen.write("proc/4711/cgroup", "0::/theirs\n")
        frozen.write("proc/4711/status", STATUS)
        frozen.write("sys/fs/cgroup/ours/memory.max", f"{GIB}\n")
        frozen.write("sys/fs/cgroup/theirs/memory.max", f"{7 * GIB}\n")
        assert frozen.machine(server_pid=4711).memory_limit_bytes == 7 * GIB

    def test_the_user_may_give_less_and_never_more(self, frozen):
        assert frozen.machine(memory_override_bytes=GIB).memory_limit_bytes == GIB
        assert frozen.machine(memory_override_bytes=GIB).memory_limit_source == "given"
        assert frozen.machine(memory_override_bytes=99 * GIB).memory_limit_source == "RAM"

    def test_without_meminfo_nothing_is_guessed(self, frozen):
        (frozen.proc / "meminfo").unlink()
        with pytest.raises(FileNotFoundError):
            frozen.machine()


class TestProcessors:
    def test_without_a_quota_they_are_those_that_the_process_may_run_on(self, frozen):
        assert frozen.machine().cpus == 5

    def test_a_quota_of_version_2_may_be_a_fraction(self, frozen):
        frozen.cgroup("0::/a/b\n")
        frozen.write("sys/fs/cgroup/a/cpu.max", "150000 100000\n")
        frozen.write("sys/fs/cgroup/a/b/cpu.max", "max 100000\n")
        assert frozen.machine().cpus == 1.5

    def test_a_quota_of_version_1(self, frozen):
        frozen.cgroup("5:cpu,cpuacct:/a\n")
        frozen.write("sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "200000\n")
        frozen.write("sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n")
        frozen.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
        frozen.write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
        assert frozen.machine().cpus == 2

    def test_a_quota_beyond_the_processors_does_not_make_more_of_them(self, frozen):
        frozen.cgroup("0::/a\n")
        frozen.write("sys/fs/cgroup/a/cpu.max", "6400000 100000\n")
        assert frozen.machine().cpus == 5

    @pytest.mark.parametrize("text", ["", "max", "1 0", "a b", "0 100000"])
    def test_a_malformed_quota_is_none(self, frozen, text):
        frozen.cgroup("0::/a\n")
        frozen.write("sys/fs/cgroup/a/cpu.max", text)
        assert frozen.machine().cpus == 5


class TestRemoteServer:
    def test_four_times_its_shared_buffers_are_assumed(self):
        machine = read_machine(is_local=False, shared_buffers_bytes=GIB)
        assert (machine.memory_limit_bytes, machine.memory_limit_source) == (4 * GIB, "assumed")
        assert not machine.is_local
        assert machine.cpus == 1
        assert machine.disk_free_bytes is None

    def test_the_user_knows_better(self):
        machine = read_machine(is_local=False, memory_override_bytes=GIB, shared_buffers_bytes=GIB)
        assert (machine.memory_limit_bytes, machine.memory_limit_source) == (GIB, "given")


class TestDisk:
    def test_free_space_is_that_of_the_data_directory(self, frozen):
        status = os.statvfs(frozen.root)
        machine = frozen.machine(data_directory=frozen.root)
        assert machine.disk_free_bytes == pytest.approx(status.f_bavail * status.f_frsize, rel=0.1)
        assert machine.rotational_disk is None

    @pytest.mark.parametrize(("text", "rotational"), [("1\n", True), ("0\n", False)])
    def test_a_disk_says_whether_it_spins(self, frozen, text, rotational):
        (with_device(frozen) / "queue").mkdir()
        (with_device(frozen) / "queue" / "rotational").write_text(text)
        assert frozen.machine(data_directory=frozen.root).rotational_disk is rotational

    def test_a_partition_asks_its_disk(self, frozen):
        link = with_device(frozen)
        frozen.write("sys/devices/vda/queue/rotational", "0\n")
        (frozen.root / "sys/devices/vda/vda1").mkdir()
        (frozen.root / "sys/devices/vda/vda1/stat").write_text(DEVICE)
        (link / "stat").unlink()
        link.rmdir()
        link.symlink_to(frozen.root / "sys/devices/vda/vda1")
        assert frozen.machine(data_directory=frozen.root).rotational_disk is False


class TestProbe:
    @pytest.fixture(autouse=True)
    def hundred_ticks(self, monkeypatch):
        monkeypatch.setattr(probe_module, "_TICKS_PER_SECOND", 100)

    def probe(self, frozen: Frozen, **more) -> HostProbe:
        return HostProbe(frozen.proc, frozen.sys, **more)

    def test_everything(self, frozen):
        with_device(frozen)
        frozen.cgroup("0::/a\n")
        frozen.write("sys/fs/cgroup/a/memory.current", "123456\n")
        frozen.write("sys/fs/cgroup/a/memory.events", "low 0\noom 2\noom_kill 1\n")
        frozen.write("proc/vmstat", "nr_free_pages 1\noom_kill 3\n")
        for resource in ("cpu", "io", "memory"):
            frozen.write(
                f"sys/fs/cgroup/a/{resource}.pressure", "some avg10=0.00 total=500000\nfull avg10=0.00 total=0\n"
            )
        reading = self.probe(frozen, data_directory=frozen.root, log_directory=frozen.root).read()
        free = {name: reading.values[name] for name in ("host.disk_free_bytes", "host.log_free_bytes")}
        assert all(value > 0 for value in free.values())
        assert dict(reading.values) == {
            "host.cpu_busy_seconds_total": 16.5,
            "host.cpu_iowait_seconds_total": 3.0,
            "host.cpu_steal_seconds_total": 0.4,
            "host.load_average_1min": 1.25,
            "host.memory_total_bytes": 16.0 * GIB,
            "host.memory_available_bytes": 8.0 * GIB,
            "host.disk_read_bytes_total": 2000 * 512.0,
            "host.disk_written_bytes_total": 4000 * 512.0,
            "host.disk_busy_seconds_total": 1.5,
            "host.cgroup_memory_bytes": 123456.0,
            "host.oom_kills_total": 3.0,
            "host.cgroup_oom_kills_total": 1.0,
            **{
                f"host.cgroup_pressure_{resource}_{share}_seconds_total": seconds
                for resource in ("cpu", "io", "memory")
                for share, seconds in (("some", 0.5), ("full", 0.0))
            },
            **{
                f"host.pressure_{resource}_{share}_seconds_total": seconds
                for resource in ("cpu", "io", "memory")
                for share, seconds in (("some", 2.5), ("full", 0.5))
            },
            **free,
        }
        assert reading.unseen == {}

    def test_what_is_missing_is_unseen_rather_than_zero(self, tmp_path):
        reading = HostProbe(tmp_path, tmp_path).read()
        assert reading.values == {}
        assert set(reading.unseen) == {
            f"host.{part}"
            for part in (
                *("cpu", "load", "memory", "disk", "disk_free", "log_free", "pressure"),
                *("cgroup_memory", "cgroup_pressure", "oom"),
            )
        }
        assert reading.unseen["host.cpu"] == f"{tmp_path}/stat: No such file or directory"

    @pytest.mark.parametrize(
        ("name", "text", "part"),
        [
            ("stat", "intr 1 2 3\n", "cpu"),
            ("stat", "cpu  1 2 x\n", "cpu"),
            ("stat", "cpu  1 2 3\n", "cpu"),
            ("stat", "", "cpu"),
            ("loadavg", "", "load"),
            ("meminfo", "MemTotal: many kB\n", "memory"),
            ("pressure/io", "some avg10=0.00\n", "pressure"),
            ("pressure/io", "gibberish\n", "pressure"),
        ],
    )
    def test_what_is_malformed_is_unseen_with_a_reason(self, frozen, name, text, part):
        frozen.write(f"proc/{name}", text)
        reading = self.probe(frozen).read()
        assert reading.unseen[f"host.{part}"]
        assert not [value for value in reading.values if value.startswith(f"host.{part}_")]
        assert "host.load_average_1min" in reading.values or part == "load"

    def test_a_malformed_device_is_unseen(self, frozen):
        (with_device(frozen) / "stat").write_text("1 2 3\n")
        assert "host.disk" in self.probe(frozen, data_directory=frozen.root).read().unseen

    def test_a_folder_that_is_gone_is_unseen(self, frozen):
        reading = self.probe(frozen, data_directory=frozen.root / "gone", log_directory=frozen.root / "gone").read()
        assert {"host.disk", "host.disk_free", "host.log_free"} <= set(reading.unseen)

    def test_the_memory_of_a_group_of_version_1(self, frozen):
        frozen.cgroup("4:memory:/a\n")
        frozen.write("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "777\n")
        assert self.probe(frozen).values()["host.cgroup_memory_bytes"] == 777

    def test_memory_left_is_what_the_tightest_group_leaves(self, frozen):
        """Page cache can be given up; shared memory, which the kernel counts among it, cannot."""
        assert self.probe(frozen).memory() == MemoryReading(8 * GIB, 1 * GIB)
        frozen.cgroup("0::/a/b\n")
        for group, limit, used, cached in (("a", 6 * GIB, 5 * GIB, 2 * GIB), ("a/b", "max", 4 * GIB, 0)):
            frozen.write(f"sys/fs/cgroup/{group}/memory.max", f"{limit}\n")
            frozen.write(f"sys/fs/cgroup/{group}/memory.current", f"{used}\n")
            stat = f"anon 1\nfile 99\nshmem 50\ninactive_file {cached // 2}\nactive_file {cached // 2}\n"
            frozen.write(f"sys/fs/cgroup/{group}/memory.stat", stat)
        assert self.probe(frozen).memory() == MemoryReading(3 * GIB, 1 * GIB)

    def test_memory_left_of_a_group_of_version_1(self, frozen):
        frozen.cgroup("4:memory:/a\n")
        frozen.write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", f"{2 * GIB}\n")
        frozen.write("sys/fs/cgroup/memory/a/memory.usage_in_bytes", f"{GIB}\n")
        assert self.probe(frozen).memory() == MemoryReading(GIB, GIB), "without statistics, nothing counts as cache"
        stat = f"inactive_file 5\ntotal_inactive_file {GIB // 2}\ntotal_active_file gibberish\n"
        frozen.write("sys/fs/cgroup/memory/a/memory.stat", stat)
        assert self.probe(frozen).memory() == MemoryReading(GIB + GIB // 2, GIB)

    @pytest.mark.parametrize("text", ["", "MemTotal: 5 kB\n", "MemAvailable: some kB\nShmem: 1 kB\n"])
    def test_memory_that_is_not_told_is_not_seen(self, frozen, text):
        frozen.write("proc/meminfo", text)
        assert self.probe(frozen).memory() is None

    def test_memory_taken_on_this_machine_is_seen(self):
        """Some kernels are seconds behind, also with what others gave back: so more is taken, and none given."""
        probe = HostProbe()
        before, taken = probe.memory(), []
        while before.left_bytes - probe.memory().left_bytes < 256 * 1024**2:
            assert len(taken) < 5
            taken.append(bytearray(b"x") * (512 * 1024**2))
            time.sleep(0.05 * len(taken) ** 2)

    def test_this_machine(self):
        """The live files of this machine are read, and no counter goes down."""
        probe = HostProbe(data_directory=Path.cwd())
        before, after = probe.values(), probe.values()
        assert before["host.cpu_busy_seconds_total"] > 0
        assert before["host.memory_available_bytes"] <= before["host.memory_total_bytes"]
        assert [name for name in before if name.endswith("_total") and after[name] < before[name]] == []


def test_a_process_that_is_in_no_group_has_no_limit(frozen):
    group = ControlGroup(frozen.proc, frozen.sys)
    assert group.memory_limit_bytes() is None
    assert group.memory_bytes() is None
    assert group.cpus() is None
