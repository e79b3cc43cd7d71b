"""Blocks that are hashed side by side have the hashes that they have one by one, on every kind of processor."""

import importlib.machinery
import importlib.util
import os
import platform
import subprocess
import sysconfig
from hashlib import blake2b
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddrive.feed import hashing

SOURCE = Path(hashing.__file__).with_name("_lanes.c")
EDGES = (0, 1, 118, 119, 120, 127, 128, 246, 247, 248, 375, 16384)  # with 9 bytes before a block: whole pieces or not
KINDS = {"built": None, "avx2": '!strcmp(name, "avx2")'}


def processor_has(feature):
    return platform.machine() == "x86_64" and feature in Path("/proc/cpuinfo").read_text().split()


def build(place, supported):
    """Compile the module as for a processor of which `supported`, an expression, says what `name` it supports."""
    file = place / "_lanes.abi3.so"
    command = [
        *("cc", "-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-DPy_LIMITED_API=0x030b0000"),
        *(f"-D__builtin_cpu_supports(name)=({supported})", f"-I{sysconfig.get_path('include')}"),
        *(str(SOURCE), "-o", str(file)),
    ]
    subprocess.run(command, check=True)
    loader = importlib.machinery.ExtensionFileLoader("ddrive.feed._lanes", str(file))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=KINDS)
def lanes(request, tmp_path_factory):
    if KINDS[request.param] is None:
        assert hashing._lanes is not None
        return hashing._lanes
    return build(tmp_path_factory.mktemp(request.param), KINDS[request.param])


def expected(block):
    return blake2b(b"\0" + len(block).to_bytes(8, "big") + bytes(block), digest_size=32).digest()


def test_it_is_built_where_the_processor_can_use_it():
    assert (hashing._lanes is not None) == processor_has("avx2")


def test_a_processor_without_long_vectors_is_told_when_it_is_loaded(tmp_path):
    with pytest.raises(ImportError, match="vectors"):
        build(tmp_path, "0")


@given(sizes=st.lists(st.sampled_from(EDGES) | st.integers(0, 4096), max_size=40), seed=st.integers(0, 2**32))
def test_any_mixture_of_sizes_has_the_hashes_of_its_blocks(lanes, sizes, seed):
    content = blake2b(seed.to_bytes(8, "big")).digest() * 300
    blocks = [content[number % 64 :][:size] for number, size in enumerate(sizes)]
    assert lanes.leaf_hashes(blocks) == [expected(block) for block in blocks]
    assert lanes.leaf_hashes(tuple(map(memoryview, blocks))) == [expected(block) for block in blocks]


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16])
def test_large_blocks_have_their_hashes(lanes, count):
    blocks = [bytearray(os.urandom(65536)) for _ in range(count)]
    assert lanes.leaf_hashes(blocks) == [expected(block) for block in blocks]


@pytest.mark.parametrize(
    ("blocks", "error"),
    [
        (None, TypeError),
        (7, TypeError),
        ([b"good", "text"], TypeError),
        ([b"good", memoryview(b"good")[::2]], BufferError),
    ],
)
def test_what_is_no_sequence_of_blocks_is_refused(lanes, blocks, error):
    with pytest.raises(error):
        lanes.leaf_hashes(blocks)


def test_blocks_are_let_go_of(lanes):
    blocks = [bytearray(100) for _ in range(10)]
    lanes.leaf_hashes(blocks)
    with pytest.raises(TypeError):
        lanes.leaf_hashes([*blocks, None])
    for block in blocks:
        block.append(1)  # not allowed while somebody holds on to its bytes


@pytest.mark.parametrize("sizes", [[], [5], [65536, 1, 1], [100] * 20, [65536] * 8, [0] * 8])
@pytest.mark.parametrize("is_built", [True, False])
def test_whoever_asks_gets_the_same_hashes_with_and_without(monkeypatch, sizes, is_built):
    if not is_built:
        monkeypatch.setattr(hashing, "_lanes", None)
    blocks = [os.urandom(size) for size in sizes]
    assert hashing.leaf_hashes(blocks) == [expected(block) for block in blocks]
